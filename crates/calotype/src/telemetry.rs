//! Logs and metrics of the service: structured lines on standard error, a Prometheus recorder.
//!
//! Neither carries a secret: what is logged is chosen where it is logged.

use std::io::IsTerminal as _;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use crate::exit::Failure;

/// Starts logging as `log` says, for the life of the process.
///
/// # Errors
/// Where the level is no filter, or logging has been started before.
pub(crate) fn start_logging(log: &Log) -> Result<(), Failure> {
    let filter = filter(&log.level)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| Failure::new(format!("logging did not start: {error}")))
}

/// Installs the process's metrics recorder; `render()` of the handle is the body of `/metrics`.
///
/// # Errors
/// Where a recorder has been installed before.
pub(crate) fn start_metrics() -> Result<PrometheusHandle, Failure> {
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| Failure::new(format!("metrics did not start: {error}")))?;
    calotype_api::ops::describe_metrics();
    calotype_s3::describe_metrics();
    Ok(handle)
}

/// Reads a level (`info`) or a list of them by module (`info,calotype_blob=debug`).
///
/// # Errors
/// A usage failure that says what is wrong.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::builder()
        .parse(level)
        .map_err(|error| Failure::usage(format!("log.level {level:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_or_a_list_by_module_is_a_filter_and_nonsense_is_not() {
        assert!(filter("info").is_ok());
        assert!(filter("warn,calotype_blob=debug").is_ok());
        assert!(filter("calotype=loud").is_err());
    }
}
