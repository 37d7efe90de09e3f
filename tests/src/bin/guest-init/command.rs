//! From a command line to its answer.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{bench, disk, hostile, journal, net, net_if, power, system, torture};

/// The arguments of a command: the JSON object that is the whole line.
pub(crate) struct Args(Value);

impl Args {
    pub(crate) fn text(&self, name: &str) -> Result<&str> {
        self.0[name]
            .as_str()
            .with_context(|| format!("argument {name:?} must be a string"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64> {
        self.0[name]
            .as_u64()
            .with_context(|| format!("argument {name:?} must be a whole number"))
    }

    pub(crate) fn number_or(&self, name: &str, default: u64) -> Result<u64> {
        if self.0[name].is_null() {
            Ok(default)
        } else {
            self.number(name)
        }
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0[name].as_bool().unwrap_or(false)
    }

    pub(crate) fn get(&self, name: &str) -> &Value {
        &self.0[name]
    }

    /// A number that indexes memory.
    pub(crate) fn size(&self, name: &str) -> Result<usize> {
        Ok(usize::try_from(self.number(name)?)?)
    }
}

/// Obeys one line: `{"ok":…}` or `{"error":"…"}`.
pub(crate) fn answer(line: &str) -> Value {
    match obey(line) {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({ "error": format!("{error:#}") }),
    }
}

fn obey(line: &str) -> Result<Value> {
    let args = Args(serde_json::from_str(line).context("a command is one JSON object")?);
    match args.text("cmd")? {
        "ping" => Ok(json!("pong")),
        "system" => system::report(),
        "dmi" => system::dmi(),
        "interrupts" => system::interrupts(),
        "pci" => system::pci(),
        "random" => system::random(&args),
        "log" => system::kernel_log(),
        "touch_memory" => system::touch_memory(&args),
        "disks" => disk::list(),
        "write" => disk::write(&args),
        "verify" => disk::verify(&args),
        "fsync" => disk::fsync(&args),
        "discard" => disk::discard(&args),
        "zeroout" => disk::zeroout(&args),
        "torture" => torture::run(&args),
        "journal" => journal::run(&args),
        "journal_verify" => journal::verify(&args),
        "bench" => bench::run(&args),
        "exec" => system::exec(&args),
        "net_list" => net_if::list(),
        "net_up" => net_if::up(&args),
        "tcp_connect" => net::tcp_connect(&args),
        "tcp_serve" => net::tcp_serve(&args),
        "udp_echo" => net::udp_echo(&args),
        "icmp" => net::icmp(&args),
        "http" => net::http(&args),
        "hostile" => hostile::run(&args),
        "ignore_button" => {
            power::ignore_button();
            Ok(json!(null))
        }
        "end" => match power::by_name(args.text("how")?)? {},
        other => bail!("no command {other:?}"),
    }
}
