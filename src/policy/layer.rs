//! The checked policy, and the layers that it is made of.

use std::{collections::BTreeMap, sync::Arc};

use super::rule::{Exemption, Rule};
use crate::image::{Digest, ScopeMap};
use crate::signature::KeyNotice;

/// Everything that was loaded from one policy folder or file.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The cluster's layer: the floor.
    pub cluster: Layer,
    /// A further layer for each namespace that has one; it can only tighten.
    pub namespaces: BTreeMap<Box<str>, Layer>,
    /// Digest over all files that were read, keys included. Two equal ones are the same policy.
    pub digest: Option<Digest>,
    /// Warnings about keys in its files that are ignored, [`MAX_KEY_WARNINGS`] at most.
    pub key_warnings: Vec<KeyWarning>,
}

/// The most warnings that are kept of all key files of a policy: a user who writes the policy of one namespace can cause them.
pub const MAX_KEY_WARNINGS: usize = 1000;

/// Something in a signer's key files that is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWarning {
    /// The signer's name in the policy.
    pub signer: Box<str>,
    /// The part of a key file that is ignored, and why.
    pub notice: KeyNotice,
}

impl KeyWarning {
    /// Adds what is passed over in a signer's key files to what was before, within [`MAX_KEY_WARNINGS`].
    pub(super) fn add(warnings: &mut Vec<Self>, signer: &str, notices: Vec<KeyNotice>) {
        let room = MAX_KEY_WARNINGS.saturating_sub(warnings.len());
        warnings.extend(notices.into_iter().take(room).map(|notice| Self { signer: signer.into(), notice }));
    }
}

/// Rules of which the one with the most specific scope decides, alone.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// Each scope's rule.
    pub rules: ScopeMap<Arc<Rule>>,
    /// Exemptions of this layer; each lifts what this layer refuses, and nothing of another layer.
    pub exemptions: Vec<Arc<Exemption>>,
    /// Which reader's semantics hold.
    pub dialect: Dialect,
}

/// The format of the file that a layer comes from. Comments name the points in which the meaning of the two differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Policy files: an image by tag also falls under the scope of the digest that it resolves to.
    #[default]
    Sealgate,
    /// policy.json: scopes match the reference as it was asked for; of an index each manifest must be signed.
    PolicyJson,
}
