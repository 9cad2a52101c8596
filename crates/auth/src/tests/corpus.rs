//! Well over a hundred tokens that are not to be accepted. Most are signed with the right key, so
//! that each fails for the one reason it is here for.

use aws_lc_rs::signature::KeyPair;
use serde_json::{Value, json};

use super::forger::{ALPHABET, Forger, decode, encode, without};
use crate::MAX_TOKEN_BYTES;

/// Names and tokens. `good` is a token that would be accepted.
pub(super) fn all(forger: &Forger, good: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut add = |name: String, token: String| all.push((name, token));
    algorithms(forger, &mut add);
    headers(forger, &mut add);
    claims(forger, &mut add);
    times(forger, &mut add);
    shapes(forger, good, &mut add);
    all
}

fn algorithms(forger: &Forger, add: &mut impl FnMut(String, String)) {
    let names =
        ["none", "None", "NONE", "nOnE", "HS256", "HS512", "RS256", "ES256", "PS256", "eddsa", "Ed25519", "", "EdDSA "];
    for name in names {
        let signed = forger.header("alg", name.into());
        add(format!("alg {name:?}, no signature"), format!("{}.", signed.rsplit_once('.').unwrap().0));
        add(format!("alg {name:?}, signed"), signed);
    }
    for value in [Value::Null, json!(["EdDSA"]), json!(1)] {
        add(format!("alg {value}"), forger.header("alg", value));
    }
    let public = forger.pair.public_key().as_ref();
    let text = pem::encode(&pem::Pem::new("PUBLIC KEY", public));
    let keys = [("raw", public), ("PEM", text.as_bytes()), ("base64", encode(public).as_bytes()), ("empty", b"")]
        .map(|(name, key)| (name, key.to_vec()));
    for (name, key) in keys {
        add(format!("HS256 with the public key, {name}"), forger.hmac(&key));
    }
}

fn headers(forger: &Forger, add: &mut impl FnMut(String, String)) {
    let own = forger.header["kid"].as_str().unwrap();
    let names = ["", "0", "../../../../dev/null", "' OR '1'='1", "/proc/self/environ", &own[1..]].map(str::to_owned);
    for kid in names.into_iter().chain([own.to_uppercase(), format!("{own}\0"), "k".repeat(2500)]) {
        add(format!("kid {kid:.20?}"), forger.header("kid", kid.into()));
    }
    for value in [Value::Null, json!(1), json!([own]), json!({ "kid": own })] {
        add(format!("kid {value}"), forger.header("kid", value));
    }
    for name in ["JWT", "jwt", "rt+jwt", "AT+JWT", "at+jwt ", "application/at+jwt", ""] {
        add(format!("typ {name:?}"), forger.header("typ", name.into()));
    }
    for name in ["alg", "kid", "typ"] {
        add(format!("no {name}"), forger.sign(&without(&forger.header, name), &forger.payload.to_string()));
    }
    let members = [
        ("jwk", json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(forger.pair.public_key().as_ref()) })),
        ("jku", json!("https://attacker.example/keys.json")),
        ("x5u", json!("https://attacker.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("cty", json!("JWT")),
        ("extra", json!(1)),
    ];
    for (name, value) in members {
        add(format!("header member {name} {value}"), forger.header(name, value));
    }
    let doubled = forger.header.to_string().replacen('{', r#"{"alg":"none","#, 1);
    add("alg twice".into(), forger.sign(&doubled, &forger.payload.to_string()));
}

fn claims(forger: &Forger, add: &mut impl FnMut(String, String)) {
    for name in ["iss", "aud", "sub", "jti", "iat", "nbf", "exp", "role"] {
        add(format!("no {name}"), forger.sign(&forger.header.to_string(), &without(&forger.payload, name)));
        add(format!("{name} null"), forger.claim(name, Value::Null));
        add(format!("{name} a list"), forger.claim(name, json!([forger.payload[name]])));
    }
    let texts = [
        ("iss", "Bellwether"),
        ("iss", ""),
        ("iss", "https://attacker.example"),
        ("aud", "bellwether"),
        ("aud", "other"),
        ("aud", ""),
        ("sub", ""),
        ("jti", ""),
        ("role", "Admin"),
        ("role", "root"),
        ("role", ""),
        ("vendor_id", "7"),
        ("vendor_id", ""),
    ];
    for (name, value) in texts {
        add(format!("{name} {value:?}"), forger.claim(name, value.into()));
    }
    add("role a number".into(), forger.claim("role", json!(0)));
    for payload in ["", "null", "[]", "\"\"", "{}", "{", "\u{feff}{}", &"[".repeat(2000)] {
        add(format!("payload {payload:.10?}"), forger.sign(&forger.header.to_string(), payload));
    }
    let doubled = forger.payload.to_string().replacen('{', r#"{"role":"admin","#, 1);
    add("role twice".into(), forger.sign(&forger.header.to_string(), &doubled));
}

fn times(forger: &Forger, add: &mut impl FnMut(String, String)) {
    let exp = forger.payload["exp"].as_u64().unwrap();
    let values = [json!(exp.to_string()), json!(exp as f64 + 0.5), json!(-1), json!(true), json!(1e300), json!({})];
    for (name, value) in ["exp", "nbf", "iat"].into_iter().flat_map(|name| values.clone().map(|value| (name, value))) {
        add(format!("{name} {value}"), forger.claim(name, value));
    }
    let moved = [
        ("exp", 0),
        ("exp", 1_799_999_970),
        ("nbf", 1_800_000_031),
        ("nbf", u64::MAX),
        ("iat", 1_800_000_031),
        ("iat", exp + 1),
    ];
    for (name, value) in moved {
        add(format!("{name} {value}"), forger.claim(name, json!(value)));
    }
    let beyond = forger.payload.to_string().replace(&exp.to_string(), "18446744073709551616");
    add("exp of 65 bits".into(), forger.sign(&forger.header.to_string(), &beyond));
}

fn shapes(forger: &Forger, good: &str, add: &mut impl FnMut(String, String)) {
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("{good}") };
    let admin = encode(forger.payload.to_string().replace("\"vendor\"", "\"admin\"").as_bytes());
    let other = forger.claim("sub", "somebody else".into());
    let long = "A".repeat(1300);
    let texts = [
        String::new(),
        ".".into(),
        "..".into(),
        "a.b.c".into(),
        "é.é.é".into(),
        "\0".into(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{good}.{signature}"),
        format!("{header}.{payload}.{signature}.{payload}.{signature}"),
        format!("{header}.{admin}.{signature}"),
        format!("{header}.{payload}.{}", other.rsplit_once('.').unwrap().1),
        format!("{good}="),
        format!("{good}=="),
        format!("{header}=.{payload}.{signature}"),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        format!("Bearer {good}"),
        format!("{good}A"),
        good[..good.len() - 1].to_owned(),
        good.to_uppercase(),
        format!("{header}.{payload}.{}", encode(&[0; 64])),
        format!("{header}.{payload}.{}", encode(&[255; 64])),
        format!("{header}.{payload}.{}", encode(&high_s(&decode(signature)))),
        format!("{header}.{payload}.{}", last_bits_set(signature)),
        forger.claim("padding", "x".repeat(MAX_TOKEN_BYTES).into()),
        "a".repeat(1 << 20),
        format!("{long}.{long}.{long}"),
        ".".repeat(MAX_TOKEN_BYTES),
    ];
    for text in texts {
        add(format!("{text:.30?} of {} bytes", text.len()), text);
    }
}

/// The same signature with S + L for S: Ed25519's malleability (RFC 8032, section 8.4).
fn high_s(signature: &[u8]) -> Vec<u8> {
    let mut order = [0; 32];
    order[..16].copy_from_slice(&0x14de_f9de_a2f7_9cd6_5812_631a_5cf5_d3ed_u128.to_le_bytes());
    order[31] = 0x10;
    let mut changed = signature.to_vec();
    let mut carry = 0;
    for (byte, order) in changed[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    changed
}

/// The same bytes in another spelling: one of the four unused bits of the last digit is set.
fn last_bits_set(signature: &str) -> String {
    let (rest, last) = signature.split_at(signature.len() - 1);
    let value = ALPHABET.iter().position(|known| *known == last.as_bytes()[0]).unwrap();
    format!("{rest}{}", ALPHABET[value | 1] as char)
}
