//! `config`: the service's configuration, without running it.

use serde_json::Value;

use crate::cli::ConfigArgs;
use crate::config::{Config, DEFAULT_TOML, Environment};
use crate::exit::Failure;
use crate::output::Output;

/// Prints what is in force. No field is a secret: secrets are in files of their own.
pub(crate) fn check(
    args: &ConfigArgs,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref(), environment)?;
    if output.is_json() {
        let document: Value = serde_json::to_value(&config)
            .map_err(|error| Failure::new(format!("the configuration: {error}")))?;
        return output.object(&document);
    }
    let text = toml::to_string(&config)
        .map_err(|error| Failure::new(format!("the configuration: {error}")))?;
    output.text(text.trim_end())
}

/// Prints the documented file.
pub(crate) fn default(output: &Output) -> Result<(), Failure> {
    output.text(DEFAULT_TOML.trim_end())
}
