//! Who a user is for a registry.

/// Is what a client sends in `X-Registry-Auth`, or has stored; empty means anonymous.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// A refresh token of the token server, instead of a password.
    pub identity_token: String,
    /// A bearer token that is sent as it is.
    pub registry_token: String,
}

/// Is the result of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Docker's text, `Login Succeeded`.
    pub status: String,
    /// A refresh token, if the token server gave one.
    pub identity_token: String,
}

// Secrets stay out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
