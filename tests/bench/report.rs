//! The rows of the report, and the table that they make.

use std::fmt::Write;
use std::time::Duration;

use crate::machine;

/// What was measured, in the order in which it was.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    value: String,
    against: String,
    ratio: String,
}

impl Report {
    /// A number with nothing to hold it against.
    pub(crate) fn alone(&mut self, what: &str, value: impl Into<String>) {
        self.push(what, value.into(), String::new(), String::new());
    }

    /// A speed in bytes a second, and another one of the same run.
    pub(crate) fn speeds(&mut self, what: &str, speed: f64, other: &str, other_speed: f64) {
        let against = format!("{other}: {}", speed_text(other_speed));
        let ratio = format!("{:.2}", speed / other_speed);
        self.push(what, speed_text(speed), against, ratio);
    }

    /// A time, and another one of the same run.
    pub(crate) fn times(&mut self, what: &str, time: Duration, other: &str, other_time: Duration) {
        let against = format!("{other}: {}", time_text(other_time));
        let ratio = format!("{:.2}", time.as_secs_f64() / other_time.as_secs_f64());
        self.push(what, time_text(time), against, ratio);
    }

    /// A time, and what part it is of another one of the same run.
    pub(crate) fn part(&mut self, what: &str, time: Duration, other: &str, other_time: Duration) {
        let against = format!("{other}: {}", time_text(other_time));
        let part = 100.0 * time.as_secs_f64() / other_time.as_secs_f64();
        self.push(what, time_text(time), against, format!("{part:.2} %"));
    }

    fn push(&mut self, what: &str, value: String, against: String, ratio: String) {
        eprintln!("  {what}: {value} ({against} {ratio})");
        self.rows.push(Row {
            what: what.to_owned(),
            value,
            against,
            ratio,
        });
    }

    /// When and where it was measured, and the table.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in machine::describe() {
            let _ = writeln!(text, "- {name}: {value}");
        }
        text.push_str("\n| what | measured | against | ratio |\n|---|---|---|---|\n");
        for row in &self.rows {
            let Row {
                what,
                value,
                against,
                ratio,
            } = row;
            let _ = writeln!(text, "| {what} | {value} | {against} | {ratio} |");
        }
        text
    }
}

/// A time for people.
pub(crate) fn time_text(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

fn speed_text(bytes_per_second: f64) -> String {
    format!("{:.0} MB/s", bytes_per_second / 1e6)
}

/// The time that this part of all times is not above: 0.5 is the median.
pub(crate) fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    let index = (last as f64 * part).round() as usize;
    times.get(index).copied().unwrap_or_default()
}
