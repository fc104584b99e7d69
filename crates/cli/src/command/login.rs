//! `login` and `logout`.

use crate::cli::Cli;
use crate::command::typed_line;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::{interrupt, note, output, terminal};
use gantry_api::image::{AuthConfig, AuthResponse};
use gantry_client::credentials::{self, ENVIRONMENT, INDEX_SERVER};
use gantry_client::{Client, Error, Request};

const NO_TERMINAL: &str = "Error: Cannot perform an interactive login from a non TTY device";

/// Runs `login`.
pub async fn login(cli: &Cli, matches: &Matches) -> Outcome {
    let (mut user, mut password) = (matches.text("username"), matches.text("password"));
    for (flag, value) in [("username", &user), ("password", &password)] {
        if matches.given(flag) && value.is_empty() {
            return Err(Failure::new(format!("{flag} is empty")));
        }
    }
    let from_input = matches.on("password-stdin");
    if from_input && !password.is_empty() {
        return Err(Failure::new(
            "conflicting options: cannot specify both --password and --password-stdin",
        ));
    }
    if !password.is_empty() {
        output::error_line(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin.",
        );
    }
    if from_input {
        if user.is_empty() {
            return Err(Failure::new(
                "the --password-stdin option requires --username to be set",
            ));
        }
        password = interrupt::blocking(|| std::io::read_to_string(std::io::stdin())).await?;
        let text = password.strip_suffix('\n').unwrap_or(&password);
        password = text.strip_suffix('\r').unwrap_or(text).to_owned();
    }
    warn_of_environment();
    let server = server_of(matches);
    let client = cli.client()?;
    let mut default_user = String::new();
    if user.is_empty() && password.is_empty() {
        // A helper that fails knows nothing: the user is asked.
        let stored = cli.credentials(&server).unwrap_or_default();
        if !stored.username.is_empty() && !stored.password.is_empty() {
            let known = AuthConfig {
                username: stored.username.clone(),
                password: stored.password,
                serveraddress: server.clone(),
                ..AuthConfig::default()
            };
            match with_stored(client, &known).await {
                Ok(answer) => return finish(cli, known, answer),
                Err(error) => output::error_line(&match error.status() {
                    Some(401) => "Stored credentials invalid or expired".to_owned(),
                    _ => format!("Login did not succeed, error: {error}"),
                }),
            }
        }
        default_user = stored.username;
    }
    if (user.is_empty() || password.is_empty()) && !terminal::input_is_terminal() {
        return Err(Failure::new(NO_TERMINAL));
    }
    if user.is_empty() {
        user = prompted_user(&default_user).await?;
    }
    if password.is_empty() {
        password = prompted_password(&server).await?;
    }
    let given = AuthConfig {
        username: user,
        password,
        serveraddress: server,
        ..AuthConfig::default()
    };
    let answer = check(client, &given).await?;
    finish(cli, given, answer)
}

/// Runs `logout`.
pub fn logout(cli: &Cli, matches: &Matches) -> Outcome {
    warn_of_environment();
    let server = server_of(matches);
    let mut places = vec![server.clone()];
    if server != INDEX_SERVER {
        // Other clients store under other spellings.
        let given = matches.arguments.first().cloned().unwrap_or_default();
        places = vec![
            given,
            server.clone(),
            format!("http://{server}"),
            format!("https://{server}"),
        ];
    }
    output::line(&format!("Removing login credentials for {server}"));
    let mut failures = Vec::new();
    for place in &places {
        if let Err(error) = credentials::erase(&cli.directory, place) {
            failures.push(format!("{place}: {error}"));
        }
    }
    if failures.len() == places.len() {
        output::error_line("WARNING: could not erase credentials:");
        failures
            .iter()
            .for_each(|failure| output::error_line(failure));
    }
    Ok(())
}

/// Returns the key of the server that was named, Docker Hub if none was.
fn server_of(matches: &Matches) -> String {
    match matches.arguments.first().map(String::as_str) {
        None | Some("" | "docker.io") => INDEX_SERVER.to_owned(),
        Some(INDEX_SERVER) => INDEX_SERVER.to_owned(),
        Some(server) => credentials::hostname(server).to_owned(),
    }
}

fn warn_of_environment() {
    if std::env::var_os(ENVIRONMENT).is_some_and(|value| !value.is_empty()) {
        let lines = [
            format!("{ENVIRONMENT} is set and takes precedence."),
            format!("Unset {ENVIRONMENT} to restore the CLI auth behaviour."),
        ];
        let text = note::warning(&[&lines[0], &lines[1], ""]);
        output::error_line(text.trim_end_matches('\n'));
    }
}

async fn with_stored(client: &Client, auth: &AuthConfig) -> Result<AuthResponse, Error> {
    output::error_line(&format!(
        "Authenticating with existing credentials... [Username: {}]",
        auth.username
    ));
    let hint = "To login with a different account, run 'docker logout' followed by 'docker login'";
    output::error_line(&note::info(&[hint], terminal::error_is_terminal()));
    output::error_line("");
    check(client, auth).await
}

async fn check(client: &Client, auth: &AuthConfig) -> Result<AuthResponse, Error> {
    client
        .send(Request::post("/auth").json(auth)?)
        .await?
        .json()
        .await
}

/// Keeps what was proved right.
fn finish(cli: &Cli, mut auth: AuthConfig, answer: AuthResponse) -> Outcome {
    if !answer.identity_token.is_empty() {
        auth.password = String::new();
        auth.identitytoken = answer.identity_token;
    }
    let kept = credentials::store(&cli.directory, &auth)
        .map_err(|error| Failure::new(format!("Error saving credentials: {error}")))?;
    if let Some(path) = kept {
        output::error_line(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            path.display()
        ));
    }
    if !answer.status.is_empty() {
        output::line(&answer.status);
    }
    Ok(())
}

async fn prompted_user(default: &str) -> Outcome<String> {
    output::out(&match default {
        "" => "Username: ".to_owned(),
        default => format!("Username ({default}): "),
    });
    let user = read_line().await?;
    match user.trim() {
        "" if default.is_empty() => Err(Failure::new("Error: Non-null Username Required")),
        "" => Ok(default.to_owned()),
        user => Ok(user.to_owned()),
    }
}

async fn prompted_password(server: &str) -> Outcome<String> {
    if server == INDEX_SERVER {
        let lines = [
            "A Personal Access Token (PAT) can be used instead.",
            "To create a PAT, visit https://app.docker.com/settings",
            "",
            "",
        ];
        output::out(&note::info(&lines, terminal::output_is_terminal()));
    }
    output::out("Password: ");
    let hidden = terminal::Hidden::enter();
    let password = read_line().await;
    drop(hidden);
    output::line("");
    match password? {
        password if password.is_empty() => Err(Failure::new("Error: Password Required")),
        password => Ok(password),
    }
}

async fn read_line() -> Outcome<String> {
    let mut line = typed_line().await?;
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    Ok(line)
}
