//! A program that links two crates which call their protocol by one name: this test is that program, and starts itself.

use std::process::{Command, ExitCode, Stdio};

use iceshare::protocol::{Setting, SettingError};

const SETTINGS: &[Setting] = &[];

iceshare::register_payload_protocol!("http", "somebody else's", SETTINGS, |_| Err(SettingError::Unknown {
    protocol: "http",
    key: String::new(),
    known: String::new(),
}));

fn main() -> ExitCode {
    const AGAIN: &str = "ICESHARE_TEST_TWICE";
    if std::env::var_os(AGAIN).is_some() {
        return iceshare_cli::main();
    }
    // Whatever it is asked to do.
    for args in
        [&["protocols"][..], &["verify", "a.ogg"], &["get", "icet://127.0.0.1:1/a", "--transport", "http"]]
    {
        let itself = std::env::current_exe().expect("a path");
        let mut command = Command::new(itself);
        command.args(args).env(AGAIN, "1").env_remove("RUST_LOG").stdin(Stdio::null());
        let ended = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        for word in ["\"http\"", "iceshare-transport-http", "iceshare-cli", "leave one out"] {
            assert!(said.contains(word), "{args:?}: {said}");
        }
        assert!(ended.stdout.is_empty(), "{args:?}");
    }
    ExitCode::SUCCESS
}
