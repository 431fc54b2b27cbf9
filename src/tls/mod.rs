//! Certificates of our own servers: loaded, made when absent, exchanged while running.
