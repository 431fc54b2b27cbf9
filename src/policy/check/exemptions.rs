//! Exemptions: the images and namespaces that they cover, and how long.

use jiff::Timestamp;

use super::checker::Checker;
use crate::diagnostic::quoted;
use crate::image::ScopeMap;
use crate::policy::{
    document::RawExemption,
    rule::{Exemption, RuleId},
};
use crate::yaml::Located;

impl Checker<'_> {
    pub(super) fn check_exemption(&mut self, raw: RawExemption, namespace: Option<&str>) -> Option<Exemption> {
        let RawExemption { name, images, namespaces, until, approved_by, reason } = raw;
        let before = self.mistakes.len();
        let mut scopes: ScopeMap<()> = ScopeMap::default();
        for (scope, place) in self.parse_scopes(&images, &format!("exemption {}", quoted(&name.value))) {
            let text = scope.to_string();
            if scopes.insert(scope, ()).is_err() {
                self.note_mistake(place, format!("the scope {text} stands twice in exemption {}", quoted(&name.value)));
            }
        }
        if let Some(namespaces) = &namespaces {
            if namespaces.is_empty() {
                self.note_mistake_with_help(
                    namespaces.key,
                    "namespaces names no namespace",
                    "leave it out if it holds in all",
                );
            }
            for name in &namespaces.value {
                self.check_namespace_name(name);
                if let Some(own) = namespace.filter(|own| **own != *name.value) {
                    let message =
                        format!("a policy of namespace {own} exempts nothing in another one, {}", quoted(&name.value));
                    self.note_mistake_with_help(name.place, message, "leave namespaces out");
                }
            }
        }
        let end = self.check_end(&until);
        self.check_not_blank(&approved_by, "who approved it");
        self.check_not_blank(&reason, "a reason");
        if self.mistakes.len() > before {
            return None;
        }
        Some(Exemption {
            id: RuleId::new(&self.document, &name),
            images: scopes,
            namespaces: namespaces
                .map(|names| names.value.into_iter().map(|name| name.value).collect())
                .unwrap_or_default(),
            until: end?,
            approved_by: approved_by.value.trim().into(),
            reason: reason.value.trim().into(),
        })
    }

    fn check_end(&mut self, text: &Located<Box<str>>) -> Option<Timestamp> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Some(time);
        }
        let suggestion = match text.parse::<jiff::civil::Date>() {
            Ok(date) => format!("write {date}T00:00:00Z"),
            Err(_) => "write a time with its zone, like 2027-01-31T00:00:00Z".to_owned(),
        };
        self.note_mistake_with_help(text.place, format!("{} is not a point in time", quoted(text)), suggestion);
        None
    }
}
