//! The layers of the environment: credentials, customary names, the twins of all keys, and files named by variables.

use std::path::{Path, PathBuf};

use crate::document::Document;
use crate::keys::{KEYS, Key, TWIN_PREFIX, key};
use crate::load::{Layering, Origin};
use crate::problem::Problem;
use crate::setting::{Fault, Scalar};
use crate::settings::Settings;
use crate::suggest;
use crate::values::{ListenAddress, parse_host};

const PLACE: &str = "environment";

/// Reads what is ours out of `environment`. A variable that is set to nothing counts as not set.
pub(crate) fn read(layering: &mut Layering, environment: &[(String, String)]) {
    let variables = Variables(environment);
    if let Some(directory) = variables.get("CREDENTIALS_DIRECTORY") {
        credentials(layering, Path::new(directory));
    }
    port_and_host(layering, &variables);
    for key in KEYS {
        for name in key.environment {
            read_variable(layering, key, name, &variables);
        }
        read_variable(layering, key, &key.twin(), &variables);
    }
    for (name, _) in environment {
        unknown_twin(layering, name);
    }
}

struct Variables<'a>(&'a [(String, String)]);

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(candidate, _)| candidate == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

fn read_variable(layering: &mut Layering, key: &'static Key, name: &str, variables: &Variables<'_>) {
    let file_name = format!("{name}_FILE");
    let file = variables.get(&file_name).filter(|_| is_secret(key));
    match (variables.get(name), file) {
        (Some(_), Some(_)) => {
            let message = format!("`{}`: {name} and {file_name} are both set; which one is meant?", key.path);
            layering.problems.push(Problem::with(PLACE, message));
        }
        (Some(value), None) => {
            // systemd may name several state directories; the first is the service's own.
            let value = if name == "STATE_DIRECTORY" { value.split(':').next().unwrap_or(value) } else { value };
            layering.give_text(key, Origin::Environment(name.to_owned()), PLACE, name, value);
        }
        (None, Some(path)) => value_file(layering, key, Path::new(path)),
        (None, None) => {}
    }
}

/// Takes the value of `key` from a file that holds nothing else.
fn value_file(layering: &mut Layering, key: &'static Key, path: &Path) {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let document = Document::File { path, text: &text };
            let origin = Origin::ValueFile(path.to_owned());
            layering.give(key, origin, (&document, 0..0), |slot| slot.set_text(text.trim_end()));
        }
        Err(error) => {
            let message = format!("`{}`: cannot be read: {error}", key.path);
            layering.problems.push(Problem::with(path.display().to_string(), message));
        }
    }
}

/// systemd's `LoadCredential=`: secrets by the name of their key, and the token key itself.
fn credentials(layering: &mut Layering, directory: &Path) {
    for key in KEYS.iter().filter(|key| is_secret(key)) {
        let path = directory.join(key.path);
        if path.exists() {
            value_file(layering, key, &path);
        }
    }
    let token_key: PathBuf = directory.join("auth.token_key");
    if token_key.exists()
        && let Some(key) = key("auth.token_key_file")
    {
        let origin = Origin::Environment("CREDENTIALS_DIRECTORY".to_owned());
        layering.give_text(key, origin, PLACE, "CREDENTIALS_DIRECTORY", &token_key.text());
    }
}

/// `PORT` and `HOST` make one address together; what one of them leaves open is taken from the first address so far.
fn port_and_host(layering: &mut Layering, variables: &Variables<'_>) {
    let Some(key) = key("supervisor.listen") else { return };
    let (port, host) = (variables.get("PORT"), variables.get("HOST"));
    let by: Vec<_> =
        [("HOST", host), ("PORT", port)].into_iter().filter_map(|(name, value)| value.map(|_| name)).collect();
    if by.is_empty() {
        return;
    }
    let so_far = layering.settings.supervisor.listen.iter().find_map(|address| match address {
        ListenAddress::Tcp(address) => Some(*address),
        ListenAddress::Unix(_) => None,
    });
    let mut address = so_far.unwrap_or_else(|| ([127, 0, 0, 1], 8080).into());
    if let Some(host) = host {
        match parse_host(host) {
            Some(ip) => address.set_ip(ip),
            None => reject(layering, "HOST", host, "expected an IP address or localhost"),
        }
    }
    if let Some(port) = port {
        match port.parse() {
            Ok(port) => address.set_port(port),
            Err(_) => reject(layering, "PORT", port, "expected a port between 0 and 65535"),
        }
    }
    let origin = Origin::Environment(by.join(" and "));
    layering.give_text(key, origin, PLACE, by[0], &format!("[\"{address}\"]"));
}

fn reject(layering: &mut Layering, name: &str, value: &str, expected: &str) {
    let text = format!("{name}={value}");
    let fault = Fault::new(name.len() + 1..text.len(), format!("`supervisor.listen`: {expected}, found `{value}`"));
    layering.problems.push(Document::Line { place: PLACE, text }.problem(fault));
}

/// A variable with our prefix that no key has. Its value stays out of the message: it may be a secret.
fn unknown_twin(layering: &mut Layering, name: &str) {
    let is_file_of_secret = || {
        let twin = name.strip_suffix("_FILE");
        twin.is_some_and(|twin| KEYS.iter().any(|key| key.twin() == twin && is_secret(key)))
    };
    if !name.starts_with(TWIN_PREFIX) || KEYS.iter().any(|key| key.twin() == name) || is_file_of_secret() {
        return;
    }
    let path = name[TWIN_PREFIX.len()..].to_lowercase().replace("__", ".");
    let meant = suggest::key(&path).and_then(|path| key(&path)).map(Key::twin);
    let fault = Fault { suggestion: meant, ..Fault::new(0..name.len(), format!("no key has the variable `{name}`")) };
    let text = format!("{name}=…");
    layering.problems.push(Document::Line { place: PLACE, text }.problem(fault));
}

fn is_secret(key: &Key) -> bool {
    (key.slot)(&mut Settings::default()).is_secret()
}
