#![doc = include_str!("../README.md")]

mod document;
mod environment;
mod file;
mod inherited;
mod keys;
mod load;
mod problem;
mod rules;
mod schema;
mod setting;
mod settings;
mod sources;
mod suggest;
mod tables;
mod template;
mod values;

pub use inherited::{SETTINGS_FD, from_inherited};
pub use load::{Loaded, Origin, Shown, load};
pub use problem::{Problem, Problems, Warning};
pub use schema::json_schema;
pub use settings::*;
pub use sources::{Assignment, FileChoice, Sources};
pub use tables::*;
pub use template::template;
pub use values::*;
#[cfg(test)]
mod tests;
