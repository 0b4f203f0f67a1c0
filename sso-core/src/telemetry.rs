//! Logs to standard error, and the metrics of the process.

use std::io::IsTerminal as _;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::ParseError, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::late_span::{self, LateSpans};

/// Directives that stand whatever the settings say: statements of SQL are not logged, and the network
/// libraries do not write down the frames and headers they see.
const FIXED: &[&str] = &[
    "sqlx::query=off",
    "h2=info",
    "hyper=info",
    "hyper_util=info",
    "rustls=info",
    "tonic=info",
    "tower=info",
];
/// Upper bounds of the buckets of histograms named `…_seconds`.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Section `[telemetry]` of every program.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// `text` or `json`, one event a line.
    pub log_format: LogFormat,
    /// What is logged: `info`, `debug`, or per module as in `info,sso_server=debug`.
    pub log_filter: String,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { log_format: LogFormat::Text, log_filter: "info".to_owned() }
    }
}

/// How log events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; coloured only on a terminal.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter of the settings makes no sense.
    #[error("telemetry.log_filter: {0}: write a level such as info, or module=level")]
    Filter(#[from] ParseError),
    /// Another subscriber is installed.
    #[error("logging is set up already")]
    Twice,
    /// Another recorder is installed.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(#[from] BuildError),
}

impl TelemetrySettings {
    /// Checks the filter without installing anything.
    ///
    /// # Errors
    /// The filter makes no sense.
    pub fn check(&self) -> Result<(), TelemetryError> {
        self.filter()?;
        Ok(())
    }

    fn filter(&self) -> Result<EnvFilter, ParseError> {
        // The environment has no say: RUST_LOG could turn on what must not be logged.
        let filter = EnvFilter::builder().parse(&self.log_filter)?;
        FIXED.iter().try_fold(filter, |filter, fixed| Ok(filter.add_directive(fixed.parse()?)))
    }
}

/// Where the metrics of the process are read.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Metrics that nothing is recorded to.
    #[must_use]
    pub fn detached() -> Self {
        Self(PrometheusBuilder::new().build_recorder().handle())
    }

    /// Everything recorded, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// To be called every few seconds, or histograms grow without bound.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Starts logging and metrics for the whole process, once.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(settings: &TelemetrySettings) -> Result<Metrics, TelemetryError> {
    let filter = settings.filter()?;
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match settings.log_format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.with_ansi(false).json().flatten_event(true).boxed(),
    };
    // Square brackets ask about spans.
    if settings.log_filter.contains('[') {
        late_span::make_at_once();
    }
    tracing_subscriber::registry()
        .with(layer.and_then(LateSpans).with_filter(filter))
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .install_recorder()?;
    Ok(Metrics(recorder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(filter: &str) -> TelemetrySettings {
        TelemetrySettings { log_filter: filter.into(), ..TelemetrySettings::default() }
    }

    #[test]
    fn filters_are_checked() {
        assert!(settings("info").check().is_ok());
        assert!(settings("warn,sso_server=debug").check().is_ok());
        let error = settings("sso_server=loud").check().unwrap_err().to_string();
        assert!(error.starts_with("telemetry.log_filter: "), "{error}");
    }

    #[test]
    fn no_filter_turns_statements_on() {
        for filter in ["trace", "sqlx=trace", "sqlx::query=trace"] {
            let filter = settings(filter).filter().unwrap().to_string();
            assert!(filter.contains("sqlx::query=off"), "{filter}");
            assert!(!filter.contains("sqlx::query=trace"), "{filter}");
        }
    }

    #[test]
    fn settings_have_defaults_and_no_unknown_keys() {
        let parsed: TelemetrySettings = toml::from_str("log_format = 'json'").unwrap();
        assert_eq!((parsed.log_format, parsed.log_filter.as_str()), (LogFormat::Json, "info"));
        assert!(toml::from_str::<TelemetrySettings>("level = 'info'").is_err());
    }
}
