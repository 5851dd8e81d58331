//! The table: samples go in, medians and ratios come out as Markdown.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::servers::Mirror;

/// What a figure is, and so how it is written.
#[derive(Clone, Copy)]
pub enum Unit {
    /// A multiple of what it need be.
    Times,
    /// Seconds.
    Seconds,
    /// Bytes per second.
    Speed,
    /// Seconds of processor time per byte.
    Cpu,
    /// Requests per second.
    Requests,
    /// Seconds of processor time per request.
    CpuOfRequests,
    /// Bytes of memory.
    Memory,
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Unit::Times => format!("{value:.2} ×"),
            Unit::Seconds if value < 1e-3 => "< 1 ms".to_owned(),
            Unit::Seconds if value < 1.0 => format!("{:.0} ms", value * 1e3),
            Unit::Seconds => format!("{value:.2} s"),
            Unit::Speed => format!("{:.2} GB/s", value / 1e9),
            Unit::Cpu => format!("{:.3} s/GB", value * 1e9),
            Unit::CpuOfRequests => format!("{:.0} µs", value * 1e6),
            Unit::Requests => format!("{value:.0}/s"),
            Unit::Memory => format!("{:.0} MiB", value / f64::from(1 << 20)),
        }
    }

    /// Whether more is better.
    fn more_is_better(self) -> bool {
        matches!(self, Unit::Speed | Unit::Requests)
    }
}

/// Who a figure belongs to: a mirror, or what it is held against.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// A mirror.
    Of(Mirror),
    /// The measure of this row.
    Reference,
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Column::Of(mirror) => fmt::Debug::fmt(mirror, f),
            Column::Reference => f.write_str("the measure"),
        }
    }
}

/// One row while it is measured.
pub struct Row {
    label: String,
    unit: Unit,
    reference: &'static str,
    samples: BTreeMap<Column, Vec<f64>>,
    notes: BTreeMap<Column, String>,
}

impl Row {
    /// A row without figures. `reference` says what its measure is.
    pub fn new(label: impl Into<String>, unit: Unit, reference: &'static str) -> Row {
        Row { label: label.into(), unit, reference, samples: BTreeMap::new(), notes: BTreeMap::new() }
    }

    /// One more sample.
    pub fn add(&mut self, column: Column, value: f64) {
        self.samples.entry(column).or_default().push(value);
    }

    /// Words instead of a figure.
    pub fn note(&mut self, column: Column, note: impl Into<String>) {
        self.notes.insert(column, note.into());
    }

    fn median(&self, column: Column) -> Option<f64> {
        let mut samples = self.samples.get(&column).filter(|_| !self.notes.contains_key(&column))?.clone();
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        Some(if samples.len() % 2 == 1 { samples[middle] } else { f64::midpoint(samples[middle - 1], samples[middle]) })
    }

    fn cell(&self, column: Column) -> String {
        let figure = self.median(column).map(|value| self.unit.write(value));
        self.notes.get(&column).cloned().or(figure).unwrap_or_else(|| "–".to_owned())
    }

    fn line(&self) -> String {
        let mut line = format!("| {} {} |", self.label, if self.unit.more_is_better() { "↑" } else { "↓" });
        for mirror in Mirror::ALL {
            let _ = write!(line, " {} |", self.cell(Column::Of(mirror)));
        }
        let ratio = self.median(Column::Of(Mirror::Larder)).zip(self.median(Column::Reference));
        let ratio = ratio.map_or_else(|| "–".to_owned(), |(larder, measure)| format!("{:.2}", larder / measure));
        let measure = if self.reference.is_empty() {
            "–".to_owned()
        } else {
            format!("{} ({})", self.cell(Column::Reference), self.reference)
        };
        let _ = writeln!(line, " {measure} | {ratio} |");
        line
    }
}

/// All rows, below a line of names.
pub fn markdown(rows: &[Row], names: [&str; 3]) -> String {
    let [larder, registry, nginx] = names;
    let mut text =
        format!("| | {larder} | {registry} | {nginx} | measure | Larder ÷ measure |\n|---|---|---|---|---|---|\n");
    text.extend(rows.iter().map(Row::line));
    text
}
