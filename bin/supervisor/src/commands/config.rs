//! `supervisor config`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use config::{Loaded, Problems, Shown};
use serde_json::{Map, Value, json};

use crate::arguments::{Config, Global, Init, Json, Show};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings;

pub(crate) fn run(global: &Global, command: &Config, output: &Output) -> Result<Exit, Failure> {
    match command {
        Config::Check(format) => check(global, format, output),
        Config::Show(show) => show_all(global, show, output),
        Config::Init(init) => write_template(global, init, output),
        Config::Schema => {
            output.result(format_args!("{:#}", config::json_schema()));
            Ok(Exit::Done)
        }
    }
}

fn check(global: &Global, format: &Json, output: &Output) -> Result<Exit, Failure> {
    let checked = config::load(&settings::sources(global));
    if format.json {
        output.result(check_document(&checked));
        return Ok(if checked.is_ok() { Exit::Done } else { Exit::Misconfigured });
    }
    let loaded = checked?;
    for warning in &loaded.warnings {
        output.warn(warning);
    }
    match &loaded.file {
        Some(path) => output.result(format_args!("{} is valid", path.display())),
        None => output.result("there is no configuration file; environment and defaults are valid"),
    }
    Ok(Exit::Done)
}

fn check_document(checked: &Result<Loaded, Problems>) -> Value {
    let problem = |problem: &config::Problem| json!({ "place": problem.place, "message": problem.message, "suggestion": problem.suggestion });
    let warning = |warning: &config::Warning| json!({ "code": warning.code, "message": warning.message });
    let (file, warnings, problems) = match checked {
        Ok(loaded) => (loaded.file.clone(), loaded.warnings.iter().map(warning).collect(), Vec::new()),
        Err(problems) => (None, Vec::<Value>::new(), problems.iter().map(problem).collect()),
    };
    json!({
        "schema": "bellwether.config-check/v1",
        "valid": checked.is_ok(),
        "file": file,
        "warnings": warnings,
        "problems": problems,
    })
}

fn show_all(global: &Global, show: &Show, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    if show.json.json {
        output.result(show_document(&loaded.shown()));
        return Ok(Exit::Done);
    }
    let lines: Vec<_> = loaded.shown().into_iter().map(|row| (assignment(&row), row.origin)).collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max();
    for (line, origin) in lines {
        if show.origin {
            output.result(format_args!("{line:width$}  # {origin}", width = width.unwrap_or_default()));
        } else {
            output.result(line);
        }
    }
    Ok(Exit::Done)
}

fn assignment(row: &Shown) -> String {
    match &row.value {
        Some(value) => format!("{} = {value}", row.key),
        None => format!("# {} is not set", row.key),
    }
}

fn show_document(rows: &[Shown]) -> Value {
    let settings: Map<_, _> = rows
        .iter()
        .map(|row| (row.key.to_owned(), json!({ "value": row.value, "origin": row.origin.to_string() })))
        .collect();
    json!({ "schema": "bellwether.config/v1", "settings": settings })
}

fn write_template(global: &Global, init: &Init, output: &Output) -> Result<Exit, Failure> {
    let template = config::template();
    if init.print {
        output.result(template.trim_end());
        return Ok(Exit::Done);
    }
    let path = global.config.clone().unwrap_or_else(|| PathBuf::from("bellwether.toml"));
    let written = OpenOptions::new().write(true).create_new(true).open(&path);
    written.and_then(|mut file| file.write_all(template.as_bytes())).map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::AlreadyExists => "it exists already; --print shows the template instead".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(Exit::CannotCreate, format_args!("cannot create {}: {reason}", path.display()))
    })?;
    output.talk(format_args!("wrote {}", path.display()));
    Ok(Exit::Done)
}
