//! The command line: a configuration file, or flags for a person.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use cumulet_vmm::config::{
    BootConfig, ConsoleConfig, DiskConfig, DiskFormat, NetConfig, TapConfig, VhostMode, VmConfig,
};

/// Runs one virtual machine on KVM.
///
/// Give it a whole configuration with --config, or describe a small machine with --kernel and
/// --disk. The last line on standard error says in JSON why the machine ended.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    /// JSON configuration; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Count exits by reason, port, register and queue, and print them at the end.
    #[arg(long)]
    trace: bool,
    /// Do without seccomp, landlock and the rest. For debugging the VMM only.
    #[arg(long)]
    no_sandbox: bool,
    /// Be killed, as by `kill -9`, when the thread that started this process ends.
    #[arg(long)]
    pub(crate) die_with_parent: bool,
    /// Log what is done, not only what goes wrong.
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// Print an example configuration and exit.
    #[arg(long)]
    print_config_example: bool,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,

    /// Kernel to boot (bzImage or ELF). Without it the first disk is booted.
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Without a configuration file",
        conflicts_with = "config"
    )]
    kernel: Option<PathBuf>,
    /// Initial RAM disk.
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Without a configuration file",
        requires = "kernel"
    )]
    initrd: Option<PathBuf>,
    /// Kernel command line; for a disk, what is added to the image's own.
    #[arg(
        long,
        value_name = "TEXT",
        help_heading = "Without a configuration file",
        conflicts_with = "config"
    )]
    cmdline: Option<String>,
    /// Guest RAM in MiB.
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 512,
        help_heading = "Without a configuration file"
    )]
    memory: u64,
    /// Number of vCPUs.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        help_heading = "Without a configuration file"
    )]
    vcpus: u8,
    /// A disk: PATH[,serial=TEXT][,format=raw|volume][,ro]. May be given again.
    #[arg(
        long,
        value_name = "DISK",
        help_heading = "Without a configuration file",
        conflicts_with = "config"
    )]
    disk: Vec<String>,
    /// A network interface on an existing tap: NAME,mac=02:00:00:00:00:01. May be given again.
    #[arg(
        long,
        value_name = "TAP",
        help_heading = "Without a configuration file",
        conflicts_with = "config"
    )]
    tap: Vec<String>,
    /// Join the guest's serial console to this terminal.
    #[arg(long, help_heading = "Without a configuration file")]
    console: bool,
}

/// What to do.
pub(crate) enum Action {
    /// Print this.
    Print(String),
    /// Check only.
    Check(VmConfig),
    /// Run.
    Run(VmConfig),
}

impl Cli {
    pub(crate) fn action(self) -> Result<Action> {
        if self.print_config_example {
            return Ok(Action::Print(EXAMPLE.trim_end().to_owned()));
        }
        let check = self.check_config;
        let config = self.into_config()?;
        Ok(if check {
            Action::Check(config)
        } else {
            Action::Run(config)
        })
    }

    fn into_config(self) -> Result<VmConfig> {
        let mut config = match &self.config {
            Some(path) => read_config(path)?,
            None => self.quick_config()?,
        };
        config.trace |= self.trace;
        config.sandbox &= !self.no_sandbox;
        config.console.stdio |= self.console;
        Ok(config)
    }

    fn quick_config(&self) -> Result<VmConfig> {
        let cmdline = self.cmdline.clone();
        let boot = match &self.kernel {
            Some(kernel) => BootConfig::Kernel {
                kernel: kernel.clone(),
                initrd: self.initrd.clone(),
                cmdline: cmdline.unwrap_or_else(|| "console=ttyS0".to_owned()),
            },
            None if self.disk.is_empty() => bail!("give --config, --kernel or --disk (see --help)"),
            None => BootConfig::Disk {
                extra_cmdline: cmdline.unwrap_or_default(),
            },
        };
        let disks = self.disk.iter().enumerate();
        Ok(VmConfig {
            vcpus: self.vcpus,
            memory_mib: self.memory,
            boot,
            disks: disks
                .map(|(index, text)| parse_disk(index, text))
                .collect::<Result<_>>()?,
            nets: self
                .tap
                .iter()
                .map(|text| parse_tap(text))
                .collect::<Result<_>>()?,
            rng: true,
            smbios: Default::default(),
            nested_virtualization: false,
            console: ConsoleConfig::default(),
            control: None,
            trace: false,
            sandbox: true,
            exit_on_reboot: false,
        })
    }
}

fn read_config(path: &PathBuf) -> Result<VmConfig> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read the configuration from standard input")?;
    } else {
        text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    }
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not a configuration", path.display()))
}

fn parse_disk(index: usize, text: &str) -> Result<DiskConfig> {
    let mut parts = text.split(',');
    let mut disk = DiskConfig {
        path: parts.next().unwrap_or_default().into(),
        format: DiskFormat::Raw,
        serial: format!("disk{index}"),
        read_only: false,
        queues: None,
        engine: Default::default(),
    };
    for part in parts {
        match part.split_once('=') {
            Some(("serial", serial)) => disk.serial = serial.to_owned(),
            Some(("format", "raw")) => disk.format = DiskFormat::Raw,
            Some(("format", "volume")) => disk.format = DiskFormat::Volume,
            None if part == "ro" => disk.read_only = true,
            _ => {
                bail!("--disk {text}: {part:?} is none of serial=…, format=raw, format=volume, ro")
            }
        }
    }
    Ok(disk)
}

fn parse_tap(text: &str) -> Result<NetConfig> {
    let Some((name, mac)) = text.split_once(",mac=") else {
        bail!("--tap {text}: expected NAME,mac=02:00:00:00:00:01");
    };
    Ok(NetConfig {
        tap: TapConfig::Name(name.to_owned()),
        mac: mac.to_owned(),
        mtu: None,
        vhost: VhostMode::default(),
    })
}

const EXAMPLE: &str = include_str!("example.json");

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<VmConfig> {
        let all = ["cumulet-vmm"].iter().chain(args);
        match Cli::try_parse_from(all)?.action()? {
            Action::Run(config) | Action::Check(config) => Ok(config),
            Action::Print(_) => bail!("prints"),
        }
    }

    #[test]
    fn the_example_is_valid() {
        let example: VmConfig = serde_json::from_str(EXAMPLE).unwrap();
        example.validate().unwrap();
    }

    #[test]
    fn flags_describe_a_machine() {
        let config = config(&[
            "--kernel",
            "k",
            "--memory",
            "64",
            "--vcpus",
            "2",
            "--disk",
            "/a,serial=vol-1,ro",
            "--tap",
            "tap0,mac=02:00:00:00:00:01",
            "--no-sandbox",
            "--console",
        ])
        .unwrap();
        config.validate().unwrap();
        assert!(config.disks[0].read_only && !config.sandbox && config.console.stdio);
        assert_eq!(config.nets[0].tap, TapConfig::Name("tap0".to_owned()));
    }

    #[test]
    fn nothing_to_boot_and_bad_flags_are_explained() {
        for args in [
            &[][..],
            &["--disk", "/a,size=1"],
            &["--disk", "/a", "--tap", "tap0"],
        ] {
            assert!(config(args).is_err(), "{args:?}");
        }
    }
}
