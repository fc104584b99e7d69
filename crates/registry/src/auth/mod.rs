//! Who asks, and what he may.
//!
//! Without users and tokens everybody may everything. With an htpasswd file users log in by Basic, or fetch tokens at the
//! built-in service and come with those; or tokens of an outside service are taken. What an access file allows to
//! `anonymous` needs neither. Files are read again when they change.

pub mod access;
pub mod htpasswd;
pub mod token;
mod watched;

use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::options::{Options, Tokens};
use access::{Access, Action, Who};
use base64::Engine as _;
use htpasswd::Users;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use token::{Claims, Grant, Signer};
use tokio::sync::Semaphore;
use watched::{Watched, invalid_file};

/// How long a password that was right is not hashed again.
const REMEMBER: Duration = Duration::from_secs(300);
/// How many of those are remembered.
const REMEMBERED_MAX: usize = 1024;
/// How many passwords are hashed at once: guessing must not take the machine.
const HASHES_AT_ONCE: usize = 2;
/// How many more may wait for that, some seconds' worth; the next one is told to come again.
const HASHES_WAITING: usize = 32;
/// The name and the action by which tokens of an outside service give the right to what concerns the whole registry. The
/// list of repositories, `registry:catalog:*`, is another thing.
const ADMIN_NAME: &str = "gantry";
/// The scope that clients are told to ask for.
pub const ADMIN_SCOPE: &str = "registry:gantry:admin";

/// Decides on requests.
pub struct Auth {
    scheme: Scheme,
    users: Option<Watched<Users>>,
    access: Option<Watched<Access>>,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    salt: [u8; 32],
    hashing: Arc<Semaphore>,
    waiting: Semaphore,
}

enum Scheme {
    Open,
    Basic,
    Bearer(Signer, Option<String>),
}

/// Is who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    Anonymous,
    User(String),
    Bearer(Box<Claims>),
}

impl Caller {
    /// Gives the name for the log.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "",
            Self::User(user) => user,
            Self::Bearer(claims) => &claims.sub,
        }
    }
}

impl Auth {
    /// Reads the files that the options name.
    ///
    /// # Errors
    /// Fails where a file cannot be read; the text names it.
    pub fn open(options: &Options) -> Result<Self> {
        let users = options
            .htpasswd
            .as_deref()
            .map(|path| Watched::open(path, Users::parse))
            .transpose()?;
        let access = options
            .access
            .as_deref()
            .map(|path| Watched::open(path, Access::parse))
            .transpose()?;
        let scheme = match &options.tokens {
            Tokens::None if users.is_none() && access.is_none() => Scheme::Open,
            Tokens::None => Scheme::Basic,
            Tokens::BuiltIn { service } => Scheme::Bearer(
                Signer::built_in(
                    &options.root.join("token.key"),
                    "gantry-registry".into(),
                    service.clone(),
                )?,
                None,
            ),
            Tokens::Outside {
                realm,
                service,
                issuer,
                key,
            } => {
                let failed = |why: String| invalid_file(key, &why);
                let pem = std::fs::read(key).map_err(|error| failed(error.to_string()))?;
                let signer =
                    Signer::outside(&pem, issuer.clone(), service.clone()).map_err(failed)?;
                Scheme::Bearer(signer, Some(realm.clone()))
            }
        };
        let mut salt = [0; 32];
        crate::random(&mut salt)?;
        Ok(Self {
            scheme,
            users,
            access,
            remembered: Mutex::default(),
            salt,
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            waiting: Semaphore::new(HASHES_AT_ONCE + HASHES_WAITING),
        })
    }

    /// Reads the files again that have changed; a broken one is left as it was, and said so in the log.
    pub fn refresh(&self) {
        if let Some(users) = &self.users {
            users.refresh(Users::parse);
        }
        if let Some(access) = &self.access {
            access.refresh(Access::parse);
        }
    }

    /// Tells whether anybody has to say who he is.
    pub const fn is_open(&self) -> bool {
        matches!(self.scheme, Scheme::Open)
    }

    /// Finds who asks from the `Authorization` header.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] for a wrong password, and for a token that is not good; [`Code::TooManyRequests`] where too
    /// many passwords wait already.
    pub async fn caller(&self, header: Option<&str>) -> Result<Caller> {
        let Some((kind, value)) = header.and_then(|header| header.split_once(' ')) else {
            return Ok(Caller::Anonymous);
        };
        match &self.scheme {
            Scheme::Open => Ok(Caller::Anonymous),
            Scheme::Basic if kind.eq_ignore_ascii_case("basic") => {
                let user = self.basic(value).await?;
                Ok(user.map_or(Caller::Anonymous, Caller::User))
            }
            Scheme::Bearer(signer, _) if kind.eq_ignore_ascii_case("bearer") => signer
                .verify(value.trim())
                .map(|claims| Caller::Bearer(Box::new(claims)))
                .ok_or_else(|| Code::Unauthorized.into()),
            _ => Err(Code::Unauthorized.into()),
        }
    }

    /// Checks the value of a Basic header and gives the user. Clients without credentials answer a challenge with an
    /// empty name and password: that is nobody.
    async fn basic(&self, value: &str) -> Result<Option<String>> {
        let text = base64::engine::general_purpose::STANDARD
            .decode(value.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or(Code::Unauthorized)?;
        let (user, password) = text.split_once(':').ok_or(Code::Unauthorized)?;
        if user.is_empty() && password.is_empty() {
            return Ok(None);
        }
        self.password(user, password).await?;
        Ok(Some(user.to_owned()))
    }

    async fn password(&self, user: &str, password: &str) -> Result<()> {
        use sha2::Digest as _;
        let hash = self
            .users
            .as_ref()
            .and_then(|users| users.get().hash(user).map(str::to_owned));
        // Bound to the line of the file: a changed password is asked for at once.
        let mut hasher = sha2::Sha256::new();
        for part in [
            self.salt.as_slice(),
            user.as_bytes(),
            password.as_bytes(),
            hash.as_deref().unwrap_or_default().as_bytes(),
        ] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let key: [u8; 32] = hasher.finalize().into();
        let is_known = self
            .remembered()
            .get(&key)
            .is_some_and(|since| since.elapsed() < REMEMBER);
        if is_known && hash.is_some() {
            return Ok(());
        }
        let _waiting = self
            .waiting
            .try_acquire()
            .map_err(|_| Error::from(Code::TooManyRequests))?;
        let place = Arc::clone(&self.hashing).acquire_owned().await;
        let (password, is_user) = (password.to_owned(), hash.is_some());
        let hash = hash.unwrap_or_else(|| htpasswd::NOBODY.to_owned());
        let is_right = crate::server::blocking(move || {
            // Held by the work and not by the client, who may be gone before it ends.
            let _place = place;
            htpasswd::verify(&password, &hash)
        })
        .await;
        if !(is_right && is_user) {
            return Err(Code::Unauthorized.into());
        }
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(key, Instant::now());
        Ok(())
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether a caller may do something with a repository.
    pub fn may(&self, caller: &Caller, name: &Name, action: Action) -> bool {
        match (&self.scheme, caller) {
            (Scheme::Open, _) => true,
            (_, Caller::Bearer(claims)) => claims.access.iter().any(|grant| {
                grant.kind == "repository"
                    && grant.name == name.as_str()
                    && grant
                        .actions
                        .iter()
                        .any(|word| word == action.word() || word == "*")
            }),
            (_, Caller::User(user)) => self.allows(Who::User(user), name, action),
            (_, Caller::Anonymous) => self.allows(Who::Anonymous, name, action),
        }
    }

    /// Tells whether a caller may take blobs of the engine beside into a repository. Whoever may push everything may; with
    /// rights by repository it is a right of its own, because the engine does not say whose its blobs are.
    pub fn may_adopt(&self, caller: &Caller, name: &Name) -> bool {
        if !self.may(caller, name, Action::Push) {
            return false;
        }
        match (&self.scheme, caller) {
            (Scheme::Open, _) => true,
            (_, Caller::Anonymous) => self.allows(Who::Anonymous, name, Action::Adopt),
            (_, Caller::User(user)) => self.allows(Who::User(user), name, Action::Adopt),
            // No client asks for it in a scope, so the service's own users need not.
            (Scheme::Bearer(signer, _), Caller::Bearer(claims)) if signer.signs() => {
                self.allows(who(&claims.sub), name, Action::Adopt)
            }
            (_, Caller::Bearer(claims)) => claims.access.iter().any(|grant| {
                grant.kind == "repository"
                    && grant.name == name.as_str()
                    && grant
                        .actions
                        .iter()
                        .any(|word| word == Action::Adopt.word())
            }),
        }
    }

    /// Tells whether a caller may see a repository in the list of all.
    pub fn may_list(&self, caller: &Caller, name: &Name) -> bool {
        match caller {
            // An outside service decides by the scope of the whole list; the built-in one leaves it to the user's rights.
            Caller::Bearer(claims) => match &self.scheme {
                Scheme::Bearer(signer, _) if signer.signs() => {
                    self.allows(who(&claims.sub), name, Action::Pull)
                }
                _ => true,
            },
            other => self.may(other, name, Action::Pull),
        }
    }

    /// Tells whether a caller may ask for the list of all repositories.
    pub fn may_catalog(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Bearer(claims) => claims.access.iter().any(|grant| {
                grant.kind == "registry" && grant.name == "catalog" && !grant.actions.is_empty()
            }),
            Caller::Anonymous => self.is_open() || self.access.is_some(),
            // What he may not pull is left out.
            Caller::User(_) => true,
        }
    }

    /// Tells whether a caller may do what concerns the whole registry.
    pub fn may_admin(&self, caller: &Caller) -> bool {
        let by_user = |user: Who<'_>| match &self.access {
            Some(access) => access.get().allows_admin(user),
            None => user != Who::Anonymous,
        };
        match (&self.scheme, caller) {
            (Scheme::Open, _) => true,
            (_, Caller::Anonymous) => by_user(Who::Anonymous),
            (_, Caller::User(user)) => by_user(Who::User(user)),
            (Scheme::Bearer(signer, _), Caller::Bearer(claims)) if signer.signs() => {
                by_user(who(&claims.sub))
            }
            (_, Caller::Bearer(claims)) => claims.access.iter().any(|grant| {
                grant.kind == "registry"
                    && grant.name == ADMIN_NAME
                    && grant
                        .actions
                        .iter()
                        .any(|word| word == Action::Admin.word() || word == "*")
            }),
        }
    }

    fn allows(&self, who: Who<'_>, name: &Name, action: Action) -> bool {
        match &self.access {
            Some(access) => access.get().allows(who, name, action),
            // Users without an access file may everything.
            None => who != Who::Anonymous,
        }
    }

    /// Gives the challenge for a client that must say who it is; `host` is what it called this registry by.
    pub fn challenge(&self, base: &str, scope: Option<&str>, caller: &Caller) -> Option<String> {
        match &self.scheme {
            Scheme::Open => None,
            Scheme::Basic => Some("Basic realm=\"gantry registry\"".to_owned()),
            Scheme::Bearer(signer, realm) => {
                let realm = realm.clone().unwrap_or_else(|| format!("{base}/token"));
                let mut text = format!("Bearer realm=\"{realm}\",service=\"{}\"", signer.service);
                if let Some(scope) = scope {
                    text.push_str(&format!(",scope=\"{scope}\""));
                }
                if matches!(caller, Caller::Bearer(_)) {
                    text.push_str(",error=\"insufficient_scope\"");
                }
                Some(text)
            }
        }
    }

    /// Answers a request for a token: by Basic, by password or by refresh token.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] for a wrong password or refresh token, [`Code::Unsupported`] where there is no built-in
    /// service.
    pub async fn token(&self, request: TokenRequest) -> Result<serde_json::Value> {
        let Scheme::Bearer(signer, None) = &self.scheme else {
            return Err(Code::Unsupported.into());
        };
        let user = match &request.credentials {
            Credentials::None => None,
            Credentials::Basic(header) => self.basic(header).await?,
            Credentials::Password(user, password) => {
                self.password(user, password).await?;
                Some(user.clone())
            }
            Credentials::Refresh(token) => {
                let user = signer.verify_refresh(token).ok_or(Code::Unauthorized)?;
                // One who was taken out of the file is out.
                let is_user = self
                    .users
                    .as_ref()
                    .is_some_and(|users| users.get().contains(&user));
                if !is_user {
                    return Err(Code::Unauthorized.into());
                }
                Some(user)
            }
        };
        let who = user.as_deref().map_or(Who::Anonymous, Who::User);
        let access = request
            .scopes
            .iter()
            .filter_map(|scope| Grant::parse(scope))
            .filter_map(|grant| self.granted(who, grant))
            .collect();
        let subject = user.as_deref().unwrap_or_default();
        let token = signer.sign(subject, access).ok_or(Code::Internal)?;
        let mut answer = serde_json::json!({
            "token": token,
            "access_token": token,
            "expires_in": token::LIFETIME.as_secs(),
            "issued_at": gantry_api::time::Timestamp::from(SystemTime::now()).to_rfc3339_fixed(),
        });
        if request.is_offline
            && let Some(user) = &user
        {
            answer["refresh_token"] = signer.sign_refresh(user).into();
        }
        Ok(answer)
    }

    /// Cuts what is asked for to what is allowed.
    fn granted(&self, who: Who<'_>, mut grant: Grant) -> Option<Grant> {
        match grant.kind.as_str() {
            "repository" => {
                let name = Name::parse(&grant.name).ok()?;
                let asked = std::mem::take(&mut grant.actions);
                grant.actions = Action::REPOSITORY
                    .into_iter()
                    .filter(|action| {
                        asked
                            .iter()
                            .any(|word| word == action.word() || word == "*")
                    })
                    .filter(|action| self.allows(who, &name, *action))
                    .map(|action| action.word().to_owned())
                    .collect();
            }
            "registry" if grant.name == "catalog" => grant.actions = vec!["*".to_owned()],
            _ => return None,
        }
        (!grant.actions.is_empty()).then_some(grant)
    }
}

fn who(subject: &str) -> Who<'_> {
    if subject.is_empty() {
        Who::Anonymous
    } else {
        Who::User(subject)
    }
}

/// Is what a client sends to the token service.
#[derive(Debug)]
pub struct TokenRequest {
    pub credentials: Credentials,
    pub scopes: Vec<String>,
    /// Whether a refresh token is wanted.
    pub is_offline: bool,
}

/// Is how a client says who it is to the token service.
pub enum Credentials {
    None,
    /// The value of a Basic header.
    Basic(String),
    Password(String, String),
    Refresh(String),
}

// Secrets stay out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic(_) => "Basic",
            Self::Password(..) => "Password",
            Self::Refresh(_) => "Refresh",
        })
    }
}
