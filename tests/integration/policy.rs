//! Policy folders as they are written, edited and broken.
