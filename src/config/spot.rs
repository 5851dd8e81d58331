//! Where something stands in a TOML document, for the schema (`upstream.url`) and for people (`upstream[ghcr.io].url`).
//!
//! Never judges what stands there.

use toml::Value;

use super::keys::{self, Shape};

/// One step down into a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// To a key of a section.
    Field(String),
    /// To an element of a list.
    Element(usize),
}

/// A place in a document, and what stands there; nothing stands where a default applies.
#[derive(Debug, Clone)]
pub(super) struct Spot<'a> {
    /// The way from the top.
    pub path: Vec<Step>,
    /// What stands there.
    pub value: Option<&'a Value>,
    shown: String,
}

impl<'a> Spot<'a> {
    pub(super) fn top(document: &'a Value) -> Spot<'a> {
        Spot { path: Vec::new(), value: Some(document), shown: String::new() }
    }

    /// The place at the end of `path`.
    pub(super) fn at(document: &'a Value, path: &[Step]) -> Spot<'a> {
        path.iter().fold(Spot::top(document), |spot, step| match step {
            Step::Field(name) => spot.field(name),
            Step::Element(index) => spot.element(*index),
        })
    }

    pub(super) fn field(&self, name: &str) -> Spot<'a> {
        let dot = if self.shown.is_empty() { "" } else { "." };
        self.below(
            Step::Field(name.to_owned()),
            format!("{dot}{}", name.escape_debug()),
            self.value.and_then(|value| value.get(name)),
        )
    }

    pub(super) fn element(&self, index: usize) -> Spot<'a> {
        let value = self.value.and_then(|value| value.get(index));
        // A person finds a section by what it is called sooner than by counting.
        let label = value.and_then(|section| section.get("name").or(section.get("pattern"))).and_then(Value::as_str);
        let label = label.map_or_else(|| format!("#{}", index + 1), |label| label.escape_debug().to_string());
        self.below(Step::Element(index), format!("[{label}]"), value)
    }

    /// The key as the schema has it.
    pub(super) fn key(&self) -> String {
        let fields = self.path.iter().filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            Step::Element(_) => None,
        });
        fields.collect::<Vec<_>>().join(".")
    }

    /// The key as a person finds it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// The key and what stands there, for a person who may have made a mistake: what looks like an account in an
    /// address is left out.
    pub(super) fn with_value(&self) -> String {
        match self.value {
            Some(Value::String(text)) => match text.rsplit_once('@') {
                Some((_account, host)) => format!("{} = {:?}", self.shown, format!("***@{host}")),
                None => format!("{} = {text:?}", self.shown),
            },
            Some(Value::Array(_) | Value::Table(_)) | None => self.shown.clone(),
            Some(number) => format!("{} = {number}", self.shown),
        }
    }

    /// Every setting below this place: all that is not a section, and sections that are written in the wrong way.
    pub(super) fn settings(&self) -> Vec<Spot<'a>> {
        let shape = if self.path.is_empty() { Some(Shape::Section) } else { keys::shape(&self.key()) };
        match (shape, self.value) {
            (Some(Shape::Section), Some(Value::Table(_))) => self.fields(),
            (Some(Shape::Repeated), Some(Value::Array(sections))) if sections.iter().all(Value::is_table) => {
                (0..sections.len()).flat_map(|index| self.element(index).fields()).collect()
            }
            _ => vec![self.clone()],
        }
    }

    fn fields(&self) -> Vec<Spot<'a>> {
        let names = self.value.and_then(Value::as_table).into_iter().flat_map(|table| table.keys());
        names.flat_map(|name| self.field(name).settings()).collect()
    }

    fn below(&self, step: Step, label: String, value: Option<&'a Value>) -> Spot<'a> {
        let mut path = self.path.clone();
        path.push(step);
        Spot { path, value, shown: format!("{}{label}", self.shown) }
    }
}
