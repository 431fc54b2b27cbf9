//! Scopes: the images that a rule or an exemption covers, and the prefixes of `remap`.

use super::checker::Checker;
use crate::diagnostic::{Span, is_short, quoted};
use crate::image::{Scope, ScopeError};
use crate::yaml::Located;

impl Checker<'_> {
    pub(super) fn parse_scopes(&mut self, images: &Located<Vec<Located<Box<str>>>>, of: &str) -> Vec<(Scope, Span)> {
        if images.is_empty() {
            self.note_mistake_with_help(
                images.key,
                format!("{of} covers no image"),
                "name scopes, like registry.example.com/acme, or \"*\" for everything",
            );
        }
        let mut scopes = Vec::new();
        for text in &images.value {
            match Scope::parse(text) {
                Ok(scope) => scopes.push((scope, text.place)),
                Err(error) => {
                    let suggestion = match &error {
                        ScopeError::NoHost { suggestion } => Some(format!("write {suggestion}")),
                        ScopeError::TrailingSlash => Some(format!("write {}", text.trim_end_matches('/'))),
                        ScopeError::HasTag => {
                            let last = text.rfind('/').unwrap_or(0);
                            text[last..].find(':').map(|colon| format!("write {}", &text[..last + colon]))
                        }
                        ScopeError::Star if text.ends_with("/*") => {
                            Some(format!("write {}: it covers everything below it", text.trim_end_matches("/*")))
                        }
                        _ => None,
                    };
                    let message = format!("{} is not a scope: {error}", quoted(&text.value));
                    let suggestion = suggestion.filter(|_| is_short(text));
                    self.mistakes.push(self.source.mistake(text.place, message).suggest_maybe(suggestion));
                }
            }
        }
        scopes
    }

    pub(super) fn parse_prefix(&mut self, text: &Located<Box<str>>) -> Option<Box<str>> {
        match Scope::parse(text) {
            Ok(Scope::Prefix(prefix)) => return Some(prefix),
            Ok(_) => {
                let message = format!("{} is not a prefix: it is a host, or a host and a path", quoted(text));
                self.note_mistake(text.place, message);
            }
            Err(error) => self.note_mistake(text.place, format!("{} is not a prefix: {error}", quoted(text))),
        }
        None
    }
}
