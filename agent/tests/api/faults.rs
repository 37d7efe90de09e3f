//! What tests do to an agent cannot be done to the one that users run.

#[test]
fn the_ordinary_program_has_no_fault_points() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_cumulet")).unwrap();
    let has = |text: &[u8]| program.windows(text.len()).any(|part| part == text);
    assert_eq!(has(b"CUMULET_FAULT"), cfg!(feature = "fault-injection"));
    // The search itself works.
    assert!(has(b"CUMULET_HOME"));
}
