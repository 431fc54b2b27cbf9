//! What tests need more than once: real programs, started on ports of their own and ended with the test.
