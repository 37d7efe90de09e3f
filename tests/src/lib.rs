//! End-to-end tests of cumulet through its public faces.
