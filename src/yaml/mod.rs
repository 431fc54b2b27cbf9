//! YAML that people write, read so that every mistake is found at its place, and many at once.
//!
//! [`parse`] makes a tree whose nodes know where they stand; [`read`] turns a tree into a raw type by serde. Fields that
//! a struct does not have are always refused, with the nearest name. [`Lenient`] marks the places where reading goes on
//! after a mistake, so that one slip does not hide another.

mod error;
mod located;
mod node;
mod reader;
mod source;

pub use located::{Entries, Lenient, Located};
pub use node::{Node, Value, parse};
pub use reader::read;
pub use source::YamlSource;
