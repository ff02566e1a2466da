//! The configuration: one TOML file, environment overrides, defaults that work.
//!
//! Later wins: the defaults of the profile, the file, then `CALOTYPE_SECTION__FIELD` from the
//! environment, then flags. Guarantees: an unknown field, a wrong type or a value out of bounds is
//! refused before anything starts, with the file's line or the variable's name; no secret is a
//! field, only files that hold one are. `default.toml` is the same as [`Config::default`], tested.

pub(crate) mod identity;
pub(crate) mod key_services;
mod load;
pub(crate) mod objects;
pub(crate) mod sections;
pub(crate) mod stores;
mod values;

pub(crate) use load::Environment;
pub(crate) use sections::{Config, Log, LogFormat};
pub(crate) use values::{Bytes, Span, parse_bytes, parse_span};

/// The whole documented file, with every field at its default.
pub(crate) const DEFAULT_TOML: &str = include_str!("config/default.toml");
