//! Who a token speaks for, and how that is written down.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The `iss` of every token.
pub(crate) const ISSUER: &str = "bellwether";

/// The `aud` of every token.
pub(crate) const AUDIENCE: &str = "bellwether-api";

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Sells.
    Vendor,
    /// Buys.
    Retailer,
}

impl Role {
    /// Its name, as tokens hold it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Vendor => "vendor",
            Self::Retailer => "retailer",
        }
    }
}

/// Somebody, as far as a request needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A stable name of the person or program, not empty.
    pub subject: String,
    /// What they may do.
    pub role: Role,
    /// The vendor they act for.
    pub vendor_id: Option<Uuid>,
}

/// What a valid token says. Times are in Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whom the token was issued to.
    pub identity: Identity,
    /// The token's own id, unique per token: what a list of revoked tokens would hold.
    pub token_id: String,
    /// When it was issued.
    pub issued_at: u64,
    /// When it stops being valid.
    pub expires_at: u64,
}

/// The payload. Every field is required but `vendor_id`; numbers must be whole, not negative and no
/// strings, `aud` one string. All of that is in the types.
#[derive(Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) iss: String,
    pub(crate) aud: String,
    pub(crate) sub: String,
    pub(crate) jti: String,
    pub(crate) iat: u64,
    pub(crate) nbf: u64,
    pub(crate) exp: u64,
    pub(crate) role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vendor_id: Option<Uuid>,
}

impl From<Payload> for Claims {
    fn from(payload: Payload) -> Self {
        let Payload { sub, jti, iat, exp, role, vendor_id, .. } = payload;
        let identity = Identity { subject: sub, role, vendor_id };
        Self { identity, token_id: jti, issued_at: iat, expires_at: exp }
    }
}
