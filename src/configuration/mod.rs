//! The checked configuration (`sealgate.yaml`). Reading and checking the file is [`load()`]'s business.

mod document;
mod load;
mod network;
mod settings;

pub use document::schema;
pub use load::load;
pub use network::{Network, NetworkError};
pub(crate) use settings::is_on_loopback;
pub use settings::{
    Access, Caches, Certificate, ClientCertificate, Configuration, Credentials, Etcd, EtcdUser, Gateway, Limits,
    LoginFile, LoginFormat, Logins, Registries, Registry, Scheme, SignatureSource, Store, Upstream, Users, Webhook,
};
