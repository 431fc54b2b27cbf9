//! The tree.

use std::{collections::HashMap, fmt};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    Location, Spanned,
    options::{DuplicateKeyPolicy, MergeKeyPolicy},
};

use super::source::YamlSource;
use crate::diagnostic::{Diagnostic, Span, is_short, quoted};

/// Deeper than this nothing in our files goes.
const MAX_DEPTH: usize = 24;
/// The most nodes of a file, repetitions by aliases included.
const MAX_NODES: usize = 200_000;
/// The most documents of a file.
const MAX_DOCUMENTS: usize = 1_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The place in the file.
    pub place: Span,
    /// The value.
    pub value: Value,
}

/// A YAML value.
#[derive(Clone, Debug)]
pub enum Value {
    /// An empty value, `null` or `~`.
    Null,
    /// `true` or `false`, and no other word.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Another number.
    Float(f64),
    /// Text.
    Text(Box<str>),
    /// A list.
    List(Vec<Node>),
    /// A map; its keys are texts. Their order is the file's, and two can be the same: see [`parse`].
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// Describes the value, with an article, for messages. Values are repeated only where they are short.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("the word {value}"),
            Self::Integer(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(text) if is_short(text) => format!("the text {text:?}"),
            Self::Text(_) => "a text".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| name.as_text() == Some(key)).map(|(_, value)| value)
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// This node and all below it.
    fn visit<'a>(&'a self, visitor: &mut impl FnMut(&'a Self)) {
        visitor(self);
        match &self.value {
            Value::List(list) => list.iter().for_each(|node| node.visit(visitor)),
            Value::Map(entries) => entries.iter().for_each(|(_, value)| value.visit(visitor)),
            _ => {}
        }
    }
}

/// Parses all documents of a YAML (or JSON) text; empty documents are left out.
///
/// # Errors
/// The text is not YAML, exceeds the bounds of this module, or has a key twice in one map.
pub fn parse(source: YamlSource<'_>) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(source.text);
    let source = YamlSource { text, ..source };
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_documents: MAX_DOCUMENTS,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_recorded_anchor_events: MAX_NODES,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES, max_replay_stack_depth: MAX_DEPTH },
        // Reported below, all of them and with both places.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // Which of two values wins is no question that a policy should raise.
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        emit_comments: false,
    };
    let documents: Vec<Node> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| vec![not_yaml(source, &error)])?;
    let mut mistakes = Vec::new();
    for document in &documents {
        document.visit(&mut |node| {
            let Value::Map(entries) = &node.value else { return };
            let mut seen: HashMap<&str, Span> = HashMap::new();
            for (key, _) in entries {
                let name = key.as_text().unwrap_or_default();
                if let Some(&first) = seen.get(name) {
                    let mistake = source.mistake(key.place, format!("{} stands twice in this map", quoted(name)));
                    mistakes.push(mistake.related(source.name, first, "it stands here first"));
                } else {
                    seen.insert(name, key.place);
                }
            }
        });
    }
    if mistakes.is_empty() { Ok(documents) } else { Err(mistakes) }
}

fn not_yaml(source: YamlSource<'_>, error: &serde_saphyr::Error) -> Diagnostic {
    use serde_saphyr::Error;
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner.without_snippet();
    }
    let (message, suggestion) = match error {
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => {
            ("the file is larger or deeper than a file of ours can be, aliases included".to_owned(), None)
        }
        Error::MergeKeyNotAllowed { .. } => {
            ("merge keys (<<) are not read".to_owned(), Some("write the fields out".to_owned()))
        }
        other => (format!("this is not YAML: {}", plain(other)), None),
    };
    let Some(location) = error.location().filter(|location| location.line() > 0) else {
        return Diagnostic::of_file(source.name, message).suggest_maybe(suggestion);
    };
    let place = place(location);
    let indentation = |line: &str| line.chars().take_while(|character| character.is_whitespace()).collect::<String>();
    let tab = [place.line, place.line + 1, place.line.saturating_sub(1)].into_iter().find_map(|number| {
        let line = source.text.lines().nth(number.checked_sub(1)?)?;
        let column = indentation(line).chars().position(|character| character == '\t')?;
        Some(Span { line: number, column: column + 1, width: 1 })
    });
    if let Some(tab) = tab {
        return source
            .mistake(tab, "a tab stands in the indentation; YAML wants spaces")
            .suggest("replace the tab with spaces");
    }
    source.mistake(place, message).suggest_maybe(suggestion)
}

/// The library's message without the place, which stands in the diagnostic.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.render_with_formatter(&serde_saphyr::DefaultMessageFormatter);
    let text = text.lines().next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    match text.find(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}

fn place(location: Location) -> Span {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX).max(1);
    Span { line: number(location.line()), column: number(location.column()), width: number(location.span().len()) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned: Spanned<Value> = Spanned::deserialize(deserializer)?;
        let mut place = place(spanned.referenced);
        if matches!(spanned.value, Value::List(_) | Value::Map(_)) {
            place.width = 1;
        }
        Ok(Self { place, value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let key = Node { place: place(key.referenced), value: Value::Text(key.value.into()) };
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_text(text: &str) -> Result<Vec<Node>, Vec<Diagnostic>> {
        parse(YamlSource { name: "f.yaml", text })
    }

    fn refused(text: &str) -> String {
        let mistakes = parse_text(text).expect_err("this is refused");
        mistakes.into_iter().map(|mistake| mistake.showing(text).to_string()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_node_knows_where_it_stands() {
        let documents = parse_text("a: 1\nb:\n- x: \"y z\"\n  w: true\n---\nc: {d: [e, 90d]}\n").unwrap();
        assert_eq!(documents.len(), 2);
        let Value::Map(entries) = &documents[0].value else { panic!() };
        assert_eq!(entries[1].0.place, Span { line: 2, column: 1, width: 1 });
        let Value::List(list) = &entries[1].1.value else { panic!() };
        assert_eq!((list[0].place.line, list[0].place.column), (3, 3));
        assert_eq!(list[0].get("x").unwrap().place, Span { line: 3, column: 6, width: 5 });
        let d = documents[1].get("c").unwrap().get("d").unwrap();
        let Value::List(list) = &d.value else { panic!() };
        assert_eq!(list[1].place, Span { line: 6, column: 12, width: 3 });
        assert_eq!(list[1].as_text(), Some("90d"));
    }

    #[test]
    fn json_is_read_too_even_with_tabs() {
        let documents = parse_text("{\n\t\"a\": [\"b\\/c\", 1, true],\n\t\"d\": {}\n}\n").unwrap();
        let Value::List(list) = &documents[0].get("a").unwrap().value else { panic!() };
        assert_eq!(list[0].as_text(), Some("b/c"));
    }

    #[test]
    fn a_tab_in_the_indentation_is_pointed_at() {
        let message = refused("spec:\n\trules: []\n");
        assert!(message.starts_with("f.yaml:2:1: a tab stands in the indentation"), "{message}");
        let message = refused("spec:\n  rules:\n  - name: x\n  \timages: [a]\n");
        assert!(message.starts_with("f.yaml:4:3: a tab stands in the indentation"), "{message}");
    }

    #[test]
    fn a_key_that_stands_twice_names_both_places() {
        let message = refused("a: 1\nb: {c: 1, c: 2}\na: 2\n");
        assert!(message.contains("f.yaml:3:1: \"a\" stands twice"), "{message}");
        assert!(message.contains("note: f.yaml:1:1: it stands here first"), "{message}");
        assert!(message.contains("f.yaml:2:11: \"c\" stands twice"), "{message}");
    }

    #[test]
    fn an_anchor_bomb_is_refused_at_once() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            text = format!("{text}a{level}: &a{level} [{}]\n", vec![before; 9].join(", "));
        }
        let message = refused(&text);
        assert!(message.contains("larger or deeper than a file of ours can be"), "{message}");
        let message = refused(&"[".repeat(100_000));
        assert!(message.contains("f.yaml:1:"), "{message}");
    }

    #[test]
    fn merge_keys_and_tags_are_refused() {
        assert!(
            refused("a: &a {x: 1}\nb:\n  <<: *a\n").contains("f.yaml:3:3: merge keys"),
            "{}",
            refused("a: &a {x: 1}\nb:\n  <<: *a\n")
        );
        assert!(refused("a: !secret x\n").contains("f.yaml:1:"));
    }

    #[test]
    fn what_is_not_yaml_says_where() {
        let message = refused("a: [1, 2\nb: 3\n");
        assert!(message.contains("this is not YAML"), "{message}");
        let message = refused("a: b: c\n");
        assert!(message.starts_with("f.yaml:1:"), "{message}");
    }

    #[test]
    fn a_key_that_slipped_out_of_its_block_is_not_shown() {
        let message = refused("a:\n  inline: |\n    -----BEGIN\nlQWGBGX8eJ4BDADNOTtoBeShownAnywhereAtAllxyz\n");
        assert!(message.starts_with("f.yaml:"), "{message}");
        assert!(!message.contains("NOTtoBeShown"), "{message}");
    }

    #[test]
    fn words_that_older_yaml_takes_for_booleans_are_texts() {
        let documents = parse_text("a: no\nb: on\nc: 0755\n").unwrap();
        assert_eq!(documents[0].get("a").unwrap().as_text(), Some("no"));
        assert_eq!(documents[0].get("b").unwrap().as_text(), Some("on"));
        assert_eq!(documents[0].get("c").unwrap().as_text(), Some("0755"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(\\PC|[\n\t :\\-\\[\\]{}&*!|>'\"#]){0,200}") {
            match parse_text(&text) {
                Ok(_) => {}
                Err(mistakes) => prop_assert!(mistakes.iter().all(|mistake| !mistake.to_string().is_empty())),
            }
        }
    }
}
