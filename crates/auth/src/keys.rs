//! Issuing and verifying tokens.

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest, hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use uuid::Uuid;

use crate::{
    Claims, Error, Identity,
    claims::{AUDIENCE, ISSUER, Payload},
    key_file,
};

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// How far the clocks of issuer and verifier may differ.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// The `typ` of an access token (RFC 9068), so that no other signed thing passes for one.
const TOKEN_TYPE: &str = "at+jwt";

/// The key pair that signs and verifies. Cheap to clone; its `Debug` shows the key's id alone.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    /// The only `kid` there is: derived from the key, never used to look anything up.
    key_id: String,
    private: EncodingKey,
    public: DecodingKey,
    validation: Validation,
    derivation: hmac::Key,
}

impl Keys {
    /// Reads the Ed25519 key (PKCS#8 PEM) at `path`, or makes one there, readable for this user alone.
    /// Processes that do so at once end up with the same key.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        let document = key_file::load_or_create(path)?;
        let pair = Ed25519KeyPair::from_pkcs8(&document).map_err(|_| Error::KeyInvalid { path: path.to_owned() })?;
        let public = pair.public_key().as_ref();
        let inner = Inner {
            key_id: key_id(public),
            private: EncodingKey::from_ed_der(&document),
            public: DecodingKey::from_ed_der(public),
            validation: signature_only(),
            derivation: hmac::Key::new(hmac::HMAC_SHA256, &document),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A secret for another purpose, the same in every process that has this key and useless for finding the key: the first half
    /// of HMAC-SHA256 over the purpose's name.
    pub fn derive_key(&self, purpose: &str) -> [u8; 16] {
        let tag = hmac::sign(&self.inner.derivation, purpose.as_bytes());
        *tag.as_ref().first_chunk().expect("HMAC-SHA256 gives 32 bytes")
    }

    /// A token for `identity`, valid from `now` for `lifetime`.
    pub fn issue(&self, identity: &Identity, lifetime: Duration, now: SystemTime) -> String {
        let issued_at = unix_seconds(now);
        let payload = Payload {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: identity.subject.clone(),
            jti: Uuid::now_v7().to_string(),
            iat: issued_at,
            nbf: issued_at,
            exp: issued_at.saturating_add(lifetime.as_secs()),
            role: identity.role,
            vendor_id: identity.vendor_id,
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TOKEN_TYPE.into());
        header.kid = Some(self.inner.key_id.clone());
        jsonwebtoken::encode(&header, &payload, &self.inner.private)
            .expect("a checked Ed25519 key signs any payload of strings and numbers")
    }

    /// What `token` says, if this key signed it as an access token that is valid at `now`.
    ///
    /// As strict as RFC 8725 asks: one algorithm, one type, one key, all claims present and of their
    /// type. Nothing the token says chooses how it is verified.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, Error> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::Malformed("too long"));
        }
        if token.bytes().filter(|byte| *byte == b'.').count() != 2 {
            return Err(Error::Malformed("not three parts"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Error::Malformed("unreadable header"))?;
        self.check_header(&header)?;
        let inner = &*self.inner;
        let payload = jsonwebtoken::decode::<Payload>(token, &inner.public, &inner.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::Json(_) | ErrorKind::Utf8(_) => Error::BadClaims,
                _ => Error::BadSignature,
            })?
            .claims;
        check_payload(&payload, unix_seconds(now))?;
        Ok(payload.into())
    }

    fn check_header(&self, header: &Header) -> Result<(), Error> {
        if header.alg != Algorithm::EdDSA {
            return Err(Error::Malformed("another algorithm"));
        }
        if header.typ.as_deref() != Some(TOKEN_TYPE) {
            return Err(Error::Malformed("another type"));
        }
        if header.kid.as_deref() != Some(&self.inner.key_id) {
            return Err(Error::UnknownKey);
        }
        // Ours have these three members alone. Others bring keys, compression or extensions along,
        // and a signed token that has them was not made by `issue`.
        let mut expected = Header::new(Algorithm::EdDSA);
        expected.typ = header.typ.clone();
        expected.kid = header.kid.clone();
        if *header == expected { Ok(()) } else { Err(Error::Malformed("unexpected header members")) }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keys").field("key_id", &self.inner.key_id).finish_non_exhaustive()
    }
}

/// The library checks the signature; the claims are checked here, against a clock that is passed in
/// and without its defaults (no `nbf`, and a missing `aud` or `iss` passes).
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

fn check_payload(payload: &Payload, now: u64) -> Result<(), Error> {
    let leeway = LEEWAY.as_secs();
    let Payload { iss, aud, sub, jti, iat, nbf, exp, .. } = payload;
    if iss != ISSUER || aud != AUDIENCE || sub.is_empty() || jti.is_empty() || exp < iat {
        return Err(Error::BadClaims);
    }
    if exp.saturating_add(leeway) <= now {
        return Err(Error::Expired);
    }
    if *nbf.max(iat) > now.saturating_add(leeway) {
        return Err(Error::NotYetValid);
    }
    Ok(())
}

/// Half of the public key's SHA-256, in hexadecimal digits.
fn key_id(public: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, public);
    hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
