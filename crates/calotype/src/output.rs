//! Everything that is printed: results on standard output, all else on standard error.
//!
//! Guarantees: a result is one table or one JSON document, so that it can be piped; a closed pipe
//! (`| head`) ends the printing silently; control characters in what the service returns are
//! escaped in tables, so that an image's name can't drive the terminal.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::exit::Failure;

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people. Not for parsing.
    #[default]
    Table,
    /// One JSON document for programs.
    Json,
}

/// Where a command prints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

/// Rows under headings.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    numeric: Vec<usize>,
}

impl Rows {
    /// A table without rows.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
            numeric: Vec::new(),
        }
    }

    /// The columns (from 0) that align to the right.
    pub(crate) fn numeric(mut self, columns: &[usize]) -> Self {
        self.numeric = columns.to_vec();
        self
    }

    /// Adds a row.
    pub(crate) fn push<S: Into<String>>(&mut self, row: impl IntoIterator<Item = S>) {
        self.rows.push(row.into_iter().map(Into::into).collect());
    }

    /// The text: columns two blanks apart, no line ends in a blank.
    pub(crate) fn render(&self) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if !self.headings.is_empty() {
            table.set_header(self.headings.clone());
        }
        for row in &self.rows {
            table.add_row(row.iter().enumerate().map(|(column, text)| {
                let cell = Cell::new(printable(text));
                if self.numeric.contains(&column) {
                    cell.set_alignment(CellAlignment::Right)
                } else {
                    cell
                }
            }));
        }
        let text = table.to_string();
        // Columns come padded by one blank on each side.
        text.lines()
            .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Output {
    /// Prints in `format`.
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints a result: `document` as JSON, or as the rows that `table` makes of it.
    pub(crate) fn result(
        self,
        document: &Value,
        table: impl FnOnce(&Value) -> Rows,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.text(&pretty(document)),
            Format::Table => self.text(&table(document).render()),
        }
    }

    /// Prints one object: as JSON, or as a table of its fields.
    pub(crate) fn object(self, document: &Value) -> Result<(), Failure> {
        self.result(document, fields)
    }

    /// Prints `text` and a line's end on standard output.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        closed_is_fine(writeln!(out, "{text}").and_then(|()| out.flush()))
            .map_err(|error| Failure::new(format!("standard output: {error}")))
    }

    /// Says something about the work on standard error.
    pub(crate) fn note(self, text: &str) {
        writeln!(io::stderr().lock(), "{text}").ok();
    }

    /// Says why the command failed: text, or with `--output json` a JSON document.
    pub(crate) fn failure(self, failure: &Failure) {
        let text = match self.format {
            Format::Table => format!("error: {}", printable_lines(&failure.to_string())),
            Format::Json => json!({"error": {
                "exit": failure.exit.code(),
                "code": failure.code,
                "message": failure.message,
                "request_id": failure.request_id,
                "hint": failure.hint,
            }})
            .to_string(),
        };
        self.note(&text);
    }

    /// A bar of bytes done, rate and time left on standard error; nothing where that is no terminal.
    pub(crate) fn bytes_bar(self, what: &str, total: Option<u64>) -> ProgressBar {
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{msg:12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
            ),
            None => (
                ProgressBar::new_spinner(),
                "{msg:12} {spinner} {bytes} {bytes_per_sec}",
            ),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        bar
    }
}

/// A table of an object's fields, by name and value.
pub(crate) fn fields(document: &Value) -> Rows {
    let mut rows = Rows::new(&["FIELD", "VALUE"]);
    if let Value::Object(map) = document {
        for (name, value) in map {
            rows.push([name.clone(), scalar(value)]);
        }
    }
    rows
}

/// A JSON value in a table's cell: text without quotes, nothing for null.
pub(crate) fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => items
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}

/// The field `name` of an object, for a table's cell.
pub(crate) fn cell(document: &Value, name: &str) -> String {
    document.get(name).map(scalar).unwrap_or_default()
}

fn pretty(document: &Value) -> String {
    serde_json::to_string_pretty(document).unwrap_or_else(|_| document.to_string())
}

fn closed_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// The text with what could drive a terminal escaped: controls and direction overrides.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            match c {
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
                c if c.is_control() => out.extend(c.escape_default()),
                c => out.push(c),
            }
            out
        })
}

fn printable_lines(text: &str) -> String {
    text.split('\n')
        .map(printable)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_without_frames_or_trailing_blanks() {
        let mut rows = Rows::new(&["ID", "NAME", "SIZE"]).numeric(&[2]);
        rows.push(["1", "debian", "10"]);
        rows.push(["22", "a longer name", "1024"]);
        insta::assert_snapshot!(rows.render(), @r"
        ID  NAME           SIZE
        1   debian           10
        22  a longer name  1024
        ");
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        let mut rows = Rows::new(&["NAME"]);
        rows.push(["\u{1b}[31mred\u{7}\u{202e}txt"]);
        let text = rows.render();
        assert!(text.contains("\\u{1b}[31mred\\u{7}\\u{202e}txt"), "{text}");
    }

    #[test]
    fn an_object_is_shown_field_by_field() {
        let document = json!({"id": "1", "tags": ["a", "b"], "size": null, "protected": false});
        insta::assert_snapshot!(fields(&document).render(), @r"
        FIELD      VALUE
        id         1
        tags       a, b
        size
        protected  false
        ");
    }

    #[test]
    fn a_closed_pipe_is_not_an_error_and_a_full_disk_is() {
        assert!(closed_is_fine(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(closed_is_fine(Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}
