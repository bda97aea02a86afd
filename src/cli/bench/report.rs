//! What was measured, as a table for people or as one JSON document.

use serde_json::{Map, Value, json};

use super::facts::Facts;
use crate::cli::escape;
use crate::cli::output::{self, Palette};

/// Narrower columns than this would make numbers of different rows hard to compare.
const NARROWEST: usize = 8;

/// A column: what people read above it, and what its member is called in JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    key: &'static str,
    /// Of numbers, when printed for people; JSON has them whole.
    decimals: usize,
    width: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Ends on the right.
    Number,
    /// A number of which 1 is the whole: per cent for people.
    Share,
    /// Begins on the left.
    Text,
}

impl Column {
    /// For numbers, printed with so many decimals.
    pub(super) const fn number(title: &'static str, key: &'static str, decimals: usize) -> Self {
        Self {
            title,
            key,
            decimals,
            width: wider(title.len(), NARROWEST),
            kind: Kind::Number,
        }
    }

    /// For whole numbers.
    pub(super) const fn count(title: &'static str, key: &'static str) -> Self {
        Self::number(title, key, 0)
    }

    /// For parts of a whole, which is 1.
    pub(super) const fn share(title: &'static str, key: &'static str) -> Self {
        Self {
            kind: Kind::Share,
            ..Self::number(title, key, 0)
        }
    }

    /// For words, `width` of which are in line.
    pub(super) const fn text(title: &'static str, key: &'static str, width: usize) -> Self {
        Self {
            title,
            key,
            decimals: 0,
            width: wider(title.len(), width),
            kind: Kind::Text,
        }
    }

    fn place(&self, text: &str) -> String {
        if self.kind == Kind::Text {
            format!("{text:<width$}", width = self.width)
        } else {
            format!("{text:>width$}", width = self.width)
        }
    }
}

const fn wider(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// What one row has in one column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Number(f64),
    Count(u64),
    Text(String),
    /// It has no meaning here: a dash for people, `null` in JSON.
    Absent,
}

impl Cell {
    fn text(&self, column: &Column) -> String {
        let decimals = column.decimals;
        match self {
            Self::Number(share) if share.is_finite() && column.kind == Kind::Share => {
                format!("{:.decimals$}%", share * 100.0)
            }
            Self::Number(number) if number.is_finite() => format!("{number:.decimals$}"),
            Self::Count(count) => count.to_string(),
            Self::Text(text) => escape::line(text).into_owned(),
            Self::Number(_) | Self::Absent => "-".to_owned(),
        }
    }

    fn json(&self) -> Value {
        match self {
            // JSON has no infinity: those become `null`.
            Self::Number(number) => json!(number),
            Self::Count(count) => json!(count),
            Self::Text(text) => json!(text),
            Self::Absent => Value::Null,
        }
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(cell: Option<T>) -> Self {
        cell.map_or(Self::Absent, Into::into)
    }
}

/// A benchmark's results, told row by row as they come, or at the end as one document.
#[derive(Debug)]
pub(super) struct Table {
    columns: &'static [Column],
    json: bool,
    document: Map<String, Value>,
    rows: Vec<Value>,
    notes: Vec<Value>,
}

impl Table {
    /// Prints the facts and the headings, unless all is for one document. Either way a person is
    /// warned when the numbers will mean little.
    pub(super) fn begin(
        benchmark: &'static str,
        facts: &Facts,
        columns: &'static [Column],
        json: bool,
    ) -> anyhow::Result<Self> {
        for warning in facts.warnings() {
            eprintln!("warning: {warning}");
        }
        if !json {
            let palette = Palette::of_stdout();
            for line in facts.lines() {
                output::line(&palette.dim(&escape::line(&line)))?;
            }
            output::line(&palette.bold(&headings(columns)))?;
        }
        let mut document = Map::new();
        document.insert("benchmark".to_owned(), benchmark.into());
        document.insert("facts".to_owned(), facts.machine_json());
        document.insert("settings".to_owned(), facts.settings_json());
        Ok(Self {
            columns,
            json,
            document,
            rows: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// Adds a row, a cell for each column.
    pub(super) fn row(&mut self, cells: &[Cell]) -> anyhow::Result<()> {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        if self.json {
            self.rows.push(members(self.columns, cells));
            return Ok(());
        }
        output::line(&line(self.columns, cells))
    }

    /// Adds a remark on the row before it.
    pub(super) fn note(&mut self, note: &str) -> anyhow::Result<()> {
        if self.json {
            self.notes.push(note.into());
            return Ok(());
        }
        output::line(&Palette::of_stdout().dim(&escape::line(note)))
    }

    /// Prints the document, if it is one.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        if !self.json {
            return Ok(());
        }
        self.document.insert("rows".to_owned(), self.rows.into());
        self.document.insert("notes".to_owned(), self.notes.into());
        output::json(&Value::Object(self.document))
    }
}

fn headings(columns: &[Column]) -> String {
    let titles = columns.iter().map(|column| column.place(column.title));
    titles.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn line(columns: &[Column], cells: &[Cell]) -> String {
    let cells = columns
        .iter()
        .zip(cells)
        .map(|(column, cell)| column.place(&cell.text(column)));
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn members(columns: &[Column], cells: &[Cell]) -> Value {
    let members = columns.iter().zip(cells);
    Value::Object(
        members
            .map(|(column, cell)| (column.key.to_owned(), cell.json()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::text("what", "what", 6),
        Column::count("n", "n"),
        Column::number("p50 ms", "p50Ms", 3),
        Column::share("share", "share"),
        Column::number("ratio", "ratio", 1),
    ];

    #[test]
    fn cells_stand_below_their_headings() {
        assert_eq!(
            headings(COLUMNS),
            "what           n    p50 ms     share     ratio"
        );
        let row = [
            "us".into(),
            Cell::Count(7),
            Cell::Number(0.12345),
            Cell::Number(0.42),
            Cell::Absent,
        ];
        assert_eq!(
            line(COLUMNS, &row),
            "us             7     0.123       42%         -"
        );
    }

    #[test]
    fn json_has_numbers_whole_and_null_for_what_has_no_meaning() {
        let row = [
            "us".into(),
            7_u64.into(),
            0.12345.into(),
            0.5.into(),
            Cell::Number(f64::INFINITY),
        ];
        assert_eq!(
            members(COLUMNS, &row),
            json!({ "what": "us", "n": 7, "p50Ms": 0.12345, "share": 0.5, "ratio": null })
        );
    }

    #[test]
    fn words_from_outside_do_not_command_the_terminal() {
        assert_eq!(Cell::from("a\u{1b}[2J").text(&COLUMNS[0]), "a\\u{1b}[2J");
    }
}
