//! Completion in shells: what is offered, asked as bash asks, and by bash itself.

use std::fs;
use std::process::Command;

use super::common::World;

/// What is offered for the last of these words.
fn offered(world: &World, words: &[&str]) -> Vec<String> {
    let mut command = world.command(&["--", "cumulet"]);
    command
        .args(words)
        .env("CUMULET_COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && error.is_empty(), "{said}{error}");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn instances_and_images_as_they_are_now() {
    let world = World::new();
    assert!(offered(&world, &["term"]).contains(&"terminate".to_owned()));
    assert_eq!(offered(&world, &["stop", "i-"]), [""; 0]);
    assert_eq!(offered(&world, &["run", "ami-"]), [""; 0]);
    assert!(!world.home().exists(), "completing makes nothing");

    world.image("tiny", 700_000);
    world
        .run(&["images", "import", "tiny", "--name", "tiny"])
        .succeeds();
    let up = world.launch("", &["--name", "web"]);
    let down = world.launch("", &["--name", "has a space"]);
    world.run(&["stop", &down]).succeeds();
    assert_eq!(offered(&world, &["stop", "i-"]), [up.as_str()]);
    assert_eq!(offered(&world, &["ssh", "we"]), ["web"]);
    assert_eq!(offered(&world, &["start", "i-"]), [down.as_str()]);
    assert_eq!(offered(&world, &["start", "has"]), [""; 0]);
    let mut both = [up.as_str(), down.as_str()];
    both.sort_unstable();
    let mut all = offered(&world, &["terminate", "i-"]);
    all.sort_unstable();
    assert_eq!(all, both);
    assert_eq!(offered(&world, &["run", "ti"]), ["tiny"]);
    assert_eq!(offered(&world, &["run", "ami-"]).len(), 1);
    assert!(offered(&world, &["run", "-t", "t3.mi"]).contains(&"t3.micro".to_owned()));
    // Another state folder has none of it.
    let other = world.path("other").display().to_string();
    assert_eq!(offered(&world, &["--home", &other, "stop", "i-"]), [""; 0]);
    // A record that is not understood costs only itself.
    fs::write(world.instance(&down).join("instance.json"), "{").unwrap();
    assert_eq!(offered(&world, &["terminate", "i-"]), [up.as_str()]);
}

#[test]
fn bash_completes_by_the_script() {
    let world = World::new();
    let id = world.launch("", &["--name", "web"]);
    let complete = r#"
        source <(cumulet completions bash)
        COMP_WORDS=(cumulet describe i-) COMP_CWORD=2 COMP_TYPE=9
        $(complete -p cumulet | sed 's/.*-F \([^ ]*\) .*/\1/') cumulet i- describe 2> /dev/null
        echo "${COMPREPLY[@]}"
    "#;
    let output = Command::new("bash")
        .args(["-c", complete])
        .env("PATH", world.search_path())
        .env("CUMULET_HOME", world.home())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{id}\n"));
}

#[test]
fn every_shell_gets_a_script() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.run(&["completions", shell]).stdout();
        assert!(script.contains("CUMULET_COMPLETE"), "{shell}: {script}");
        let json = world.run(&["--output", "json", "completions", shell]);
        assert_eq!(json.json()["Script"], script);
        assert_eq!(json.json()["Shell"], shell);
    }
    world
        .run(&["completions", "tcsh"])
        .fails(2, &["tcsh", "bash", "zsh", "fish"]);
    assert!(!world.home().exists());
}
