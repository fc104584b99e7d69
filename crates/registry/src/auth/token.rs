//! Bearer tokens: signed by the built-in service, or by an outside one whose public key is known.
//!
//! Tokens are JWTs as Docker's token authentication specification has them. The crate that reads and writes them takes its
//! cryptography from ring, in [`PROVIDER`]; nothing of it is made here.

use crate::error::{Error, Result};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, signature};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ED25519,
    EcdsaKeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};
use x509_cert::Certificate;
use x509_cert::der::DecodePem as _;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// How long a token lets in; clients renew it by themselves.
pub const LIFETIME: Duration = Duration::from_secs(300);
/// How long a refresh token stands for its user.
const REFRESH_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// The audience of refresh tokens: none of them is taken for a token that lets in.
const REFRESH_AUDIENCE: &str = "gantry-registry-refresh";
const NO_KEY: &str = "is no public key or certificate of RSA, P-256, P-384 or Ed25519 in PEM";
/// How wrong the clock of another machine may be.
const LEEWAY: Duration = Duration::from_secs(60);

/// Is what a token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default)]
    pub iss: String,
    #[serde(default)]
    pub sub: String,
    pub exp: u64,
    #[serde(default)]
    pub nbf: u64,
    #[serde(default)]
    pub iat: u64,
    #[serde(default)]
    pub jti: String,
    #[serde(default)]
    pub aud: Audience,
    #[serde(default)]
    pub access: Vec<Grant>,
}

/// Is who a token is for: one, or a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// Is one right in a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    #[serde(default)]
    pub actions: Vec<String>,
}

impl Grant {
    /// Reads a scope, `repository:NAME:pull,push`; the name may have colons.
    pub fn parse(scope: &str) -> Option<Self> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        // `repository(plugin)` is asked for as well.
        let kind = kind.split('(').next().unwrap_or(kind);
        Some(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions: actions
                .split(',')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// Checks tokens, and signs them if it has the private key.
pub struct Signer {
    verifying: Vec<(Algorithm, DecodingKey)>,
    signing: Option<EncodingKey>,
    pub issuer: String,
    pub service: String,
}

impl Signer {
    /// Opens the built-in service's key beneath a root, or makes it.
    ///
    /// # Errors
    /// Fails where the key cannot be read or written.
    pub fn built_in(path: &Path, issuer: String, service: String) -> Result<Self> {
        install();
        let failed = |error: std::io::Error| Error::io(format!("key `{}`", path.display()), &error);
        let broken = || {
            failed(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "is no PKCS #8 key of P-256",
            ))
        };
        let random = SystemRandom::new();
        let document = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let document =
                    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
                        .map_err(|_| broken())?;
                let temporary = path.with_extension("new");
                let mut file = File::options()
                    .create(true)
                    .truncate(true)
                    .write(true)
                    .mode(0o600)
                    .open(&temporary)
                    .map_err(failed)?;
                file.write_all(document.as_ref())
                    .and_then(|()| file.sync_all())
                    .and_then(|()| std::fs::rename(&temporary, path))
                    .map_err(failed)?;
                document.as_ref().to_vec()
            }
            Err(error) => return Err(failed(error)),
        };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document, &random)
            .map_err(|_| broken())?;
        Ok(Self {
            verifying: vec![(
                Algorithm::ES256,
                DecodingKey::from_ec_der(pair.public_key().as_ref()),
            )],
            signing: Some(EncodingKey::from_ec_der(&document)),
            issuer,
            service,
        })
    }

    /// Takes the public key of an outside service, or its certificate, in PEM.
    ///
    /// # Errors
    /// Fails for a file that is no public key of RSA, P-256, P-384 or Ed25519.
    pub fn outside(pem: &[u8], issuer: String, service: String) -> Result<Self, String> {
        install();
        let info = SubjectPublicKeyInfoOwned::from_pem(pem)
            .or_else(|_| {
                let certificate = Certificate::from_pem(pem)?;
                Ok(certificate
                    .tbs_certificate()
                    .subject_public_key_info()
                    .clone())
            })
            .map_err(|_: x509_cert::der::Error| NO_KEY.to_owned())?;
        let bytes = info.subject_public_key.raw_bytes();
        // RFC 3279 and RFC 8410.
        let verifying = match info.algorithm.oid.to_string().as_str() {
            "1.2.840.113549.1.1.1" => [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512]
                .map(|algorithm| (algorithm, DecodingKey::from_rsa_der(bytes)))
                .to_vec(),
            "1.2.840.10045.2.1" => [Algorithm::ES256, Algorithm::ES384]
                .map(|algorithm| (algorithm, DecodingKey::from_ec_der(bytes)))
                .to_vec(),
            "1.3.101.112" => vec![(Algorithm::EdDSA, DecodingKey::from_ed_der(bytes))],
            _ => return Err(NO_KEY.to_owned()),
        };
        Ok(Self {
            verifying,
            signing: None,
            issuer,
            service,
        })
    }

    /// Tells whether it is the built-in service.
    pub fn signs(&self) -> bool {
        self.signing.is_some()
    }

    /// Reads a token that lets in; `None` if it is not a good one.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        self.read(token, &self.service)
    }

    /// Reads a refresh token: whose it is.
    pub fn verify_refresh(&self, token: &str) -> Option<String> {
        self.read(token, REFRESH_AUDIENCE).map(|claims| claims.sub)
    }

    fn read(&self, token: &str, audience: &str) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let (algorithm, key) = self
            .verifying
            .iter()
            .find(|(algorithm, _)| *algorithm == header.alg)?;
        let mut validation = Validation::new(*algorithm);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY.as_secs();
        jsonwebtoken::decode::<Claims>(token, key, &validation)
            .ok()
            .map(|data| data.claims)
    }

    /// Signs a token with rights; `None` if this is not the built-in service.
    pub fn sign(&self, subject: &str, access: Vec<Grant>) -> Option<String> {
        self.write(subject, access, &self.service, LIFETIME)
    }

    /// Signs a refresh token of a user.
    pub fn sign_refresh(&self, subject: &str) -> Option<String> {
        self.write(subject, Vec::new(), REFRESH_AUDIENCE, REFRESH_LIFETIME)
    }

    fn write(
        &self,
        subject: &str,
        access: Vec<Grant>,
        audience: &str,
        lifetime: Duration,
    ) -> Option<String> {
        let key = self.signing.as_ref()?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .as_secs();
        let mut id = [0; 16];
        crate::random(&mut id).ok()?;
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: subject.to_owned(),
            exp: now + lifetime.as_secs(),
            nbf: now,
            iat: now,
            jti: gantry_api::id::hex(&id),
            aud: Audience::One(audience.to_owned()),
            access,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, key).ok()
    }
}

/// ring behind the interface of `jsonwebtoken`.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory,
    verifier_factory,
    key_utils: KeyUtils::new_unimplemented(),
};

fn install() {
    // A second call changes nothing.
    let _ = PROVIDER.install_default();
}

fn signer_factory(
    algorithm: &Algorithm,
    key: &EncodingKey,
) -> jsonwebtoken::errors::Result<Box<dyn JwtSigner>> {
    if *algorithm != Algorithm::ES256 {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let pair = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        key.as_bytes(),
        &SystemRandom::new(),
    )
    .map_err(|_| ErrorKind::InvalidEcdsaKey)?;
    Ok(Box::new(RingSigner(pair)))
}

struct RingSigner(EcdsaKeyPair);

impl signature::Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, signature::Error> {
        self.0
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

fn verifier_factory(
    algorithm: &Algorithm,
    key: &DecodingKey,
) -> jsonwebtoken::errors::Result<Box<dyn JwtVerifier>> {
    let method: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
        Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::EdDSA => &ED25519,
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    Ok(Box::new(RingVerifier {
        algorithm: *algorithm,
        key: UnparsedPublicKey::new(method, key.try_get_as_bytes()?.to_vec()),
    }))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: UnparsedPublicKey<Vec<u8>>,
}

impl signature::Verifier<Vec<u8>> for RingVerifier {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        self.key
            .verify(message, signature)
            .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(directory: &Path, service: &str) -> Signer {
        Signer::built_in(&directory.join("key"), "issuer".into(), service.into()).unwrap()
    }

    #[test]
    fn tokens_are_good_for_their_service_alone_and_over_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let one = service(directory.path(), "one");
        let grant = Grant::parse("repository:localhost:5000/a/b:pull,push").unwrap();
        assert_eq!(grant.name, "localhost:5000/a/b");
        let token = one.sign("alice", vec![grant.clone()]).unwrap();
        let again = service(directory.path(), "one");
        let claims = again.verify(&token).unwrap();
        assert_eq!((claims.sub.as_str(), claims.access), ("alice", vec![grant]));
        assert!(service(directory.path(), "two").verify(&token).is_none());
        let other = tempfile::tempdir().unwrap();
        assert!(
            service(other.path(), "one").verify(&token).is_none(),
            "another key"
        );
        let mut broken = token.clone();
        broken.replace_range(token.len() - 9..token.len() - 8, "-");
        assert!(one.verify(&broken).is_none() || broken == token);
        // A refresh token does not let in, and a token does not refresh.
        let refresh = one.sign_refresh("alice").unwrap();
        assert_eq!(one.verify_refresh(&refresh).as_deref(), Some("alice"));
        assert!(one.verify(&refresh).is_none());
        assert!(one.verify_refresh(&token).is_none());
        // The key is nobody else's.
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(directory.path().join("key"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn expired_and_unsigned_tokens_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let one = service(directory.path(), "one");
        let key = one.signing.as_ref().unwrap();
        let claims = Claims {
            iss: "issuer".into(),
            exp: 1_000,
            aud: Audience::Many(vec!["one".into()]),
            ..Claims::default()
        };
        let expired = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, key).unwrap();
        assert!(one.verify(&expired).is_none());
        // {"alg":"none"}
        let parts: Vec<&str> = expired.split('.').collect();
        assert!(
            one.verify(&format!("eyJhbGciOiJub25lIn0.{}.", parts[1]))
                .is_none()
        );
        assert!(one.verify("x").is_none());
    }

    #[test]
    fn an_outside_services_certificate_stands_for_its_key() {
        let made = rcgen::generate_simple_self_signed(vec!["auth.test".to_owned()]).unwrap();
        let key = EncodingKey::from_ec_der(&made.signing_key.serialize_der());
        let public = made.signing_key.public_key_pem();
        for pem in [made.cert.pem(), public] {
            let outside = Signer::outside(pem.as_bytes(), "issuer".into(), "one".into()).unwrap();
            let claims = serde_json::json!({"iss": "issuer", "aud": "one", "exp": u32::MAX});
            let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key);
            assert!(outside.verify(&token.unwrap()).is_some(), "{pem}");
        }
        let private = made.signing_key.serialize_pem();
        for other in [private.as_str(), "", "x"] {
            assert!(Signer::outside(other.as_bytes(), "i".into(), "s".into()).is_err());
        }
    }

    #[test]
    fn an_outside_services_key_is_read_from_pem() {
        use base64::Engine as _;
        use ring::signature::Ed25519KeyPair;
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        // SubjectPublicKeyInfo of Ed25519 (RFC 8410).
        let mut spki = vec![
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        spki.extend_from_slice(pair.public_key().as_ref());
        let text = base64::engine::general_purpose::STANDARD.encode(spki);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
        let outside = Signer::outside(pem.as_bytes(), "issuer".into(), "one".into()).unwrap();
        assert!(!outside.signs());
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let claims = serde_json::json!({"iss": "issuer", "aud": "one", "exp": now.as_secs() + 60, "sub": "bob"});
        let encode = |value: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value);
        let message = format!(
            "{}.{}",
            encode(br#"{"alg":"EdDSA","typ":"JWT"}"#),
            encode(claims.to_string().as_bytes())
        );
        let token = format!(
            "{message}.{}",
            encode(pair.sign(message.as_bytes()).as_ref())
        );
        assert_eq!(outside.verify(&token).unwrap().sub, "bob");
        assert!(
            outside
                .verify(&token.replace("eyJhbGciOiJFZERTQSI", "eyJhbGciOiJIUzI1NiI"))
                .is_none()
        );
        assert!(Signer::outside(b"x", String::new(), String::new()).is_err());
    }
}
