//! Registries: a thin, bounded client of the distribution specification.
