//! Figures by peer, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    digits: usize,
}

impl Column {
    pub fn new(name: &str, digits: usize) -> Self {
        Self { name: name.to_owned(), digits }
    }
}

/// What a scenario has found.
#[derive(Debug)]
pub struct Table {
    pub title: String,
    pub columns: Vec<Column>,
    pub rows: Vec<(String, Vec<Option<f64>>)>,
    /// What must be known to read it.
    pub notes: Vec<String>,
}

impl Table {
    pub fn new(title: &str, columns: Vec<Column>) -> Self {
        Self { title: title.to_owned(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    pub fn row(&mut self, name: &str, figures: Vec<Option<f64>>) {
        assert_eq!(figures.len(), self.columns.len(), "a figure for each column");
        self.rows.push((name.to_owned(), figures));
    }

    pub fn shown(&self, column: usize, figure: Option<f64>) -> String {
        let digits = self.columns[column].digits;
        figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.digits$}"))
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let wide = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut out = format!("{}\n{:wide$}", self.title, "");
        for column in &self.columns {
            let _ = write!(out, "  {}", column.name);
        }
        for (name, figures) in &self.rows {
            let _ = write!(out, "\n{name:<wide$}");
            for (place, figure) in figures.iter().enumerate() {
                let width = self.columns[place].name.chars().count() + 2;
                let _ = write!(out, "{:>width$}", self.shown(place, *figure));
            }
        }
        for note in &self.notes {
            let _ = write!(out, "\n  {note}");
        }
        out + "\n"
    }

    /// For a page.
    pub fn markdown(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let mut out = format!("| | {} |\n|---|{}\n", names.join(" | "), "---:|".repeat(names.len()));
        for (name, figures) in &self.rows {
            let shown: Vec<_> =
                figures.iter().enumerate().map(|(place, figure)| self.shown(place, *figure)).collect();
            let _ = writeln!(out, "| {name} | {} |", shown.join(" | "));
        }
        for note in &self.notes {
            let _ = writeln!(out, "\n{note}");
        }
        out
    }

    pub fn value(&self) -> Value {
        let row = |(name, figures): &(String, Vec<Option<f64>>)| {
            let figures: Vec<_> = figures.iter().map(|figure| json!(figure)).collect();
            (name.clone(), Value::Array(figures))
        };
        let columns: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let rows: Map<_, _> = self.rows.iter().map(row).collect();
        json!({ "title": self.title, "columns": columns, "rows": rows, "notes": self.notes })
    }
}
