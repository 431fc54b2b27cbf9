//! From tree to raw type, by serde.

use std::{cell::RefCell, fmt};

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
    value::{StrDeserializer, UsizeDeserializer},
};

use super::{
    YamlSource,
    error::YamlError,
    node::{Node, Value},
};
use crate::diagnostic::{Diagnostic, Span, is_short, quoted};

/// The name by which [`super::Located`] asks for its place.
pub(super) const LOCATED: &str = "\0sealgate located";
/// The name by which [`super::Lenient`] asks for its mistakes to be noted.
pub(super) const LENIENT: &str = "\0sealgate lenient";

/// The most mistakes that are noted: a user reads no more.
const MAX_MISTAKES: usize = 200;

/// Reads a raw type out of a tree.
///
/// # Errors
/// All mistakes. Where some parts are [`super::Lenient`], what could be read comes with them.
pub fn read<T: DeserializeOwned>(source: YamlSource<'_>, node: &Node) -> (Option<T>, Vec<Diagnostic>) {
    let context = ReadContext { mistakes: RefCell::default() };
    let reader = NodeReader { node, field: None, key: None, context: &context };
    let result = T::deserialize(reader);
    let mut mistakes = context.mistakes.into_inner();
    let value = result.map_err(|mistake| mistakes.push(mistake.or_at(node.place))).ok();
    let mut diagnostics: Vec<Diagnostic> = mistakes
        .into_iter()
        .map(|YamlError { place, message, suggestion }| {
            source.mistake(place.unwrap_or(node.place), message).suggest_maybe(suggestion)
        })
        .collect();
    diagnostics.sort_by_key(|diagnostic| diagnostic.place);
    (value, diagnostics)
}

struct ReadContext {
    mistakes: RefCell<Vec<YamlError>>,
}

impl ReadContext {
    fn note(&self, mistake: YamlError) {
        let mut mistakes = self.mistakes.borrow_mut();
        if mistakes.len() < MAX_MISTAKES {
            mistakes.push(mistake);
        }
    }
}

#[derive(Clone, Copy)]
struct NodeReader<'a> {
    node: &'a Node,
    /// The field whose value this is, or in whose list it stands.
    field: Option<Field<'a>>,
    key: Option<Span>,
    context: &'a ReadContext,
}

#[derive(Clone, Copy)]
enum Field<'a> {
    Named(&'a str),
    EntryOf(&'a str),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(&quoted(name)),
            Self::EntryOf(name) => write!(f, "an entry of {}", quoted(name)),
        }
    }
}

impl NodeReader<'_> {
    /// Something else was expected here.
    fn expected(&self, expected: &str) -> YamlError {
        let found = self.node.value.describe();
        let message = match self.field {
            Some(field) => format!("{field} should be {expected}, found {found}"),
            None => format!("{expected} is expected, found {found}"),
        };
        let suggestion = match (expected, &self.node.value) {
            ("a list", Value::Text(text)) if is_short(text) && !text.contains([',', ':']) => {
                Some(format!("write it as a list: [{text}]"))
            }
            ("a list", Value::Map(_)) => {
                Some("a dash may be missing: each entry of a list begins with \"- \"".to_owned())
            }
            ("a text", Value::Integer(_) | Value::Float(_) | Value::Bool(_)) => {
                Some("put it into quotes to make it a text".to_owned())
            }
            ("a map", Value::List(_)) => Some("a dash may be too many: fields of a map have none".to_owned()),
            ("a map", Value::Text(text)) if text.contains(':') => {
                Some("a space may be missing behind the colon".to_owned())
            }
            (_, Value::Null) => Some("give it a value, or leave it out".to_owned()),
            _ => None,
        };
        // Where nothing stands there is nothing to point at but the field.
        let place = self.key.filter(|_| matches!(self.node.value, Value::Null)).unwrap_or(self.node.place);
        YamlError { place: Some(place), message, suggestion }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
            let Value::Integer(number) = self.node.value else {
                return Err(self.expected("a whole number"));
            };
            let result = match (u64::try_from(number), i64::try_from(number)) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => Err(self.expected("a smaller number")),
            };
            result.map_err(|mistake| mistake.or_at(self.node.place))
        })*
    };
}

impl<'de> Deserializer<'de> for NodeReader<'_> {
    type Error = YamlError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match &self.node.value {
            Value::Null => Err(self.expected("a value")),
            Value::Bool(_) => self.deserialize_bool(visitor),
            Value::Integer(_) => self.deserialize_i64(visitor),
            Value::Float(number) => {
                visitor.visit_f64(*number).map_err(|mistake: YamlError| mistake.or_at(self.node.place))
            }
            Value::Text(_) => self.deserialize_str(visitor),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match self.node.value {
            Value::Bool(value) => {
                visitor.visit_bool(value).map_err(|mistake: YamlError| mistake.or_at(self.node.place))
            }
            _ => Err(self.expected("true or false")),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text).map_err(|mistake: YamlError| mistake.or_at(self.node.place)),
            _ => Err(self.expected("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        self.deserialize_str(visitor)
    }

    /// A field that stands there has a value: `rules:` with nothing behind it is a slip.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        let Value::List(list) = &self.node.value else { return Err(self.expected("a list")) };
        let entries = ListReader { nodes: list.iter(), list: self };
        visitor.visit_seq(entries).map_err(|mistake| mistake.or_at(self.node.place))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        let Value::Map(entries) = &self.node.value else { return Err(self.expected("a map")) };
        let map = MapReader { entries: entries.iter(), current: None, fields: None, context: self.context };
        visitor.visit_map(map).map_err(|mistake| mistake.or_at(self.node.place))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        let Value::Map(entries) = &self.node.value else { return Err(self.expected("a map")) };
        let map = MapReader { entries: entries.iter(), current: None, fields: Some(fields), context: self.context };
        visitor.visit_map(map).map_err(|mistake| mistake.or_at(self.node.place))
    }

    /// Enums are words, or maps with one field.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        match &self.node.value {
            Value::Text(_) => visitor
                .visit_enum(VariantReader { key: self, value: None, variants })
                .map_err(|mistake| mistake.or_at(self.node.place)),
            Value::Map(entries) => {
                let [(key, value)] = entries.as_slice() else {
                    let message = format!("exactly one of these fields is expected: {}", variants.join(", "));
                    return Err(YamlError { place: Some(self.node.place), message, suggestion: None });
                };
                let field = key.as_text().map(Field::Named);
                let key = Self { node: key, ..self };
                let value = Self { node: value, field, key: Some(key.node.place), ..self };
                visitor.visit_enum(VariantReader { key, value: Some(value), variants })
            }
            _ => Err(self.expected(&format!("one of: {}", variants.join(", ")))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        match name {
            LOCATED => visitor.visit_seq(LocatedReader { next: 0, value: self }),
            LENIENT => visitor.visit_seq(LenientReader { value: self }),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

struct ListReader<'a> {
    nodes: std::slice::Iter<'a, Node>,
    list: NodeReader<'a>,
}

impl<'de> SeqAccess<'de> for ListReader<'_> {
    type Error = YamlError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, YamlError> {
        let Some(node) = self.nodes.next() else { return Ok(None) };
        let field = self.list.field.map(|field| match field {
            Field::Named(name) | Field::EntryOf(name) => Field::EntryOf(name),
        });
        let reader = NodeReader { node, field, key: None, context: self.list.context };
        seed.deserialize(reader).map(Some).map_err(|mistake| mistake.or_at(node.place))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.nodes.len())
    }
}

struct MapReader<'a> {
    entries: std::slice::Iter<'a, (Node, Node)>,
    current: Option<&'a (Node, Node)>,
    /// The fields of a struct.
    fields: Option<&'static [&'static str]>,
    context: &'a ReadContext,
}

impl<'de> MapAccess<'de> for MapReader<'_> {
    type Error = YamlError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, YamlError> {
        for entry in self.entries.by_ref() {
            let (key, _) = entry;
            if let (Some(fields), Some(name)) = (self.fields, key.as_text())
                && !fields.contains(&name)
            {
                // Noted, so that the rest is looked at too.
                self.context.note(<YamlError as de::Error>::unknown_field(name, fields).or_at(key.place));
                continue;
            }
            self.current = Some(entry);
            let reader = NodeReader { node: key, field: None, key: None, context: self.context };
            return seed.deserialize(reader).map(Some).map_err(|mistake| mistake.or_at(key.place));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, YamlError> {
        let (key, value) = self.current.take().ok_or_else(|| de::Error::custom("no key before the value"))?;
        let field = key.as_text().map(Field::Named);
        let reader = NodeReader { node: value, field, key: Some(key.place), context: self.context };
        seed.deserialize(reader).map_err(|mistake| mistake.or_at(value.place))
    }
}

struct VariantReader<'a> {
    key: NodeReader<'a>,
    value: Option<NodeReader<'a>>,
    variants: &'static [&'static str],
}

impl<'a, 'de> EnumAccess<'de> for VariantReader<'a> {
    type Error = YamlError;
    type Variant = VariantContent<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, VariantContent<'a>), YamlError> {
        let Self { key, value, variants } = self;
        let name = key.node.as_text().unwrap_or_default();
        if !variants.contains(&name) {
            let mistake = match value {
                Some(_) => <YamlError as de::Error>::unknown_field(name, variants),
                None => <YamlError as de::Error>::unknown_variant(name, variants),
            };
            return Err(mistake.or_at(key.node.place));
        }
        let deserializer: StrDeserializer<'_, YamlError> = name.into_deserializer();
        Ok((seed.deserialize(deserializer)?, VariantContent { key, value }))
    }
}

struct VariantContent<'a> {
    key: NodeReader<'a>,
    value: Option<NodeReader<'a>>,
}

impl VariantContent<'_> {
    fn value(&self) -> Result<NodeReader<'_>, YamlError> {
        self.value.ok_or_else(|| YamlError {
            place: Some(self.key.node.place),
            message: format!("{} needs a value", self.key.node.value.describe()),
            suggestion: self.key.node.as_text().map(|name| format!("write {{{name}: ...}}")),
        })
    }
}

impl<'de> VariantAccess<'de> for VariantContent<'_> {
    type Error = YamlError;

    fn unit_variant(self) -> Result<(), YamlError> {
        match self.value {
            None => Ok(()),
            Some(_) => Err(self.key.expected("a word without a value")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, YamlError> {
        let value = self.value()?;
        seed.deserialize(value).map_err(|mistake| mistake.or_at(value.node.place))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, YamlError> {
        self.value()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        self.value()?.deserialize_struct("", fields, visitor)
    }
}

/// Gives a value's place and its key's, then the value.
struct LocatedReader<'a> {
    next: u8,
    value: NodeReader<'a>,
}

impl<'de> SeqAccess<'de> for LocatedReader<'_> {
    type Error = YamlError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, YamlError> {
        let place = self.value.node.place;
        let key = self.value.key.unwrap_or(place);
        let numbers = [place.line, place.column, place.width, key.line, key.column, key.width];
        let index = usize::from(self.next);
        self.next = self.next.saturating_add(1);
        match numbers.get(index) {
            Some(&number) => seed.deserialize(UsizeDeserializer::new(number)).map(Some),
            None => seed.deserialize(self.value).map(Some).map_err(|mistake| mistake.or_at(place)),
        }
    }
}

/// Gives a value, or notes the mistake and gives nothing.
struct LenientReader<'a> {
    value: NodeReader<'a>,
}

impl<'de> SeqAccess<'de> for LenientReader<'_> {
    type Error = YamlError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, YamlError> {
        match seed.deserialize(self.value) {
            Ok(value) => Ok(Some(value)),
            Err(mistake) => {
                self.value.context.note(mistake.or_at(self.value.node.place));
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::yaml::{Entries, Lenient, Located, parse};

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Outer {
        name: Located<Box<str>>,
        #[serde(default)]
        items: Vec<Lenient<Item>>,
        #[serde(default)]
        named: Entries<Lenient<Item>>,
        mode: Option<Located<Word>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Item {
        count: Located<u32>,
        what: Option<Choice>,
        #[serde(default)]
        list: Vec<Located<Box<str>>>,
    }

    #[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase")]
    enum Word {
        Enforce,
        Warn,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase")]
    enum Choice {
        Exact,
        Named(Box<str>),
    }

    fn read_text(text: &str) -> (Option<Outer>, String) {
        let source = YamlSource { name: "f", text };
        let documents = parse(source).unwrap();
        let (value, mistakes) = read(source, &documents[0]);
        let mistakes: Vec<String> = mistakes
            .iter()
            .map(|mistake| {
                mistake.to_string().lines().filter(|line| !line.contains(" |")).collect::<Vec<_>>().join(";")
            })
            .collect();
        (value, mistakes.join("\n"))
    }

    #[test]
    fn values_come_with_their_place_and_their_key_s() {
        let (outer, mistakes) = read_text(
            "name: x\nmode: warn\nitems:\n- {count: 3, what: exact}\nnamed:\n  a: {count: 4, what: {named: z}}\n",
        );
        assert_eq!(mistakes, "");
        let outer = outer.unwrap();
        assert_eq!(&*outer.name.value, "x");
        assert_eq!(outer.name.place, Span { line: 1, column: 7, width: 1 });
        assert_eq!(outer.name.key, Span { line: 1, column: 1, width: 4 });
        assert_eq!(outer.mode.unwrap().value, Word::Warn);
        let (name, item) = &outer.named.0[0];
        assert_eq!((&*name.value, name.place.line), ("a", 6));
        assert!(item.0.as_ref().unwrap().list.is_empty());
        assert_eq!(item.0.as_ref().unwrap().what, Some(Choice::Named("z".into())));
        assert_eq!(outer.items[0].0.as_ref().unwrap().count.value, 3);
    }

    #[test]
    fn all_mistakes_are_found_at_once_each_at_its_place() {
        let (_, mistakes) = read_text(
            "name: 1.10\nmod: warn\nitems:\n- {cuont: 3}\n- {count: x}\n- {count: 1, list: a}\n- {count: -1}\n- {count: 1, what: exakt}\n- [count: 1]\n- {count: 1, list: [7]}\n- {count: }\n",
        );
        assert_eq!(
            mistakes,
            "f:1:7: \"name\" should be a text, found the number 1.1;  help: put it into quotes to make it a text"
        );
        let (_, mistakes) = read_text(
            "name: a\nmod: warn\nitems:\n- {cuont: 3}\n- {count: x}\n- {count: 1, list: a}\n- {count: -1}\n- {count: 1, what: exakt}\n- [count: 1]\n- {count: 1, list: [7]}\n- {count: }\n",
        );
        let expected = [
            "f:2:1: unknown field \"mod\";  help: did you mean mode?",
            "f:4:3: the field \"count\" is missing",
            "f:4:4: unknown field \"cuont\";  help: did you mean count?",
            "f:5:11: \"count\" should be a whole number, found the text \"x\"",
            "f:6:20: \"list\" should be a list, found the text \"a\";  help: write it as a list: [a]",
            "f:7:11: invalid value: integer `-1`, expected u32",
            "f:8:20: \"exakt\" is not known here;  help: did you mean exact?",
            "f:9:3: an entry of \"items\" should be a map, found a list;  help: a dash may be too many: fields of a map have none",
            "f:10:21: an entry of \"list\" should be a text, found the number 7;  help: put it into quotes to make it a text",
            "f:11:4: \"count\" should be a whole number, found nothing;  help: give it a value, or leave it out",
        ];
        assert_eq!(mistakes.lines().collect::<Vec<_>>(), expected);
    }
}
