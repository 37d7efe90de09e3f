//! Everything that can be typed, and the help texts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::{ArgValueCandidates, Shell};

use super::complete;
use super::forward::Forward;
use super::output::Format;
use super::parse::{DiskArg, MetadataArg, TagArg, duration, published};
use super::serve::ServeArgs;
use crate::fabric::UplinkMode;
use crate::router::RouterArgs;
use crate::size::Size;
use crate::state::record::Published;
use crate::supervise::SuperviseArgs;

const AFTER: &str = "\
Exit status:
  0  done
  1  something that should work did not
  2  bad argument or bad input
  3  no such instance or image
  4  wrong state, or held by another process
  5  this host cannot do it: `cumulet doctor` says what to mend
  6  the instance failed
  130  interrupted by Ctrl-C before it was done
`cumulet ssh` and `run --ssh` pass on the status of ssh.";

/// EC2 on your own machine.
#[derive(Debug, Parser)]
#[command(name = "cumulet", version, after_help = AFTER, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// How results are printed; errors go to standard error in the same form
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub output: Format,

    /// State folder [default: $XDG_DATA_HOME/cumulet or ~/.local/share/cumulet]
    #[arg(
        long,
        global = true,
        env = "CUMULET_HOME",
        value_name = "FOLDER",
        hide_env_values = true
    )]
    pub home: Option<PathBuf>,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Launch an instance; it is gone when you leave, unless --keep
    Run(Box<RunArgs>),
    /// Build, import, list, check and remove AMIs
    Images(ImagesArgs),
    /// List the instances that run
    Ps(PsArgs),
    /// List all instances: `ps --all`
    #[command(visible_alias = "ls")]
    List,
    /// Show everything about instances
    Describe(DescribeArgs),
    /// List the instance types
    Types,
    /// Open an ssh session, or run a command in the guest
    Ssh(SshArgs),
    /// Join an instance's serial console
    Console(ConsoleArgs),
    /// Print what the guest has said on its console, also when it is stopped
    Logs(LogsArgs),
    /// Lead ports of this host to ports of a running guest, until Ctrl-C
    Forward(ForwardArgs),
    /// Stop instances by their power button; volumes stay, scratch disks are blanked
    Stop(StopArgs),
    /// Start stopped instances
    Start(StartArgs),
    /// Reboot instances; all disks stay as they are
    Reboot(RebootArgs),
    /// End instances and delete everything of them
    Terminate(TerminateArgs),
    /// Answer as EC2: the API for the aws CLI and SDKs
    Serve(ServeArgs),
    /// Print the variables that point the aws CLI and SDKs at `cumulet serve`
    Env,
    /// Find out whether this host can run guests, and how to mend it
    Doctor,
    /// Print a script that completes commands, instances and images in your shell
    Completions(CompletionsArgs),
    /// A byte stream to a guest port, for ssh's ProxyCommand
    #[command(name = "__dial", hide = true)]
    Dial(DialArgs),
    /// The process that owns a running instance
    #[command(name = "__supervise", hide = true)]
    Supervise(SuperviseArgs),
    /// The process that owns the network of the agent's VPCs
    #[command(name = "__router", hide = true)]
    Router(RouterArgs),
    /// What the API reads and writes, as JSON, for `cargo xtask api-lint`
    #[command(name = "__api-schema", hide = true)]
    ApiSchema,
}

/// `cumulet run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cumulet run debian-12 --ssh
  cumulet run debian-12 --user-data setup.sh --publish 8080:80 --keep --name web
  cumulet run ami-0123456789abcdef0 --vcpus 4 --memory 8G --disk 20G --scratch 10G --console
  cumulet run --kernel vmlinuz --initrd initrd.img --cmdline 'console=ttyS0' --console")]
pub struct RunArgs {
    /// AMI id or name (`cumulet images list`)
    #[arg(required_unless_present = "kernel", add = ArgValueCandidates::new(complete::amis))]
    pub image: Option<String>,

    /// Instance type (`cumulet types`) [default: t3.micro]
    #[arg(long, short = 't', value_name = "TYPE", conflicts_with_all = ["vcpus", "memory"], add = ArgValueCandidates::new(complete::types))]
    pub instance_type: Option<String>,

    /// Number of vCPUs, 1 to 32, instead of a type
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u16>,

    /// Guest memory such as 512M or 4G, instead of a type's
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,

    /// User data: a script (#!) or cloud-config, run at first boot; `-` is standard input
    #[arg(long, short = 'u', value_name = "FILE")]
    pub user_data: Option<PathBuf>,

    /// OpenSSH public key that may log in [default: a key pair of cumulet's own]
    #[arg(long, short = 'k', value_name = "FILE.pub")]
    pub key: Option<PathBuf>,

    /// Give the guest no public key
    #[arg(long, conflicts_with_all = ["key", "ssh"])]
    pub no_key: bool,

    /// Size of the root disk, from the image's own size upwards
    #[arg(long, value_name = "SIZE")]
    pub root_size: Option<Size>,

    /// Add a blank volume, /dev/sdf and on; may be repeated
    #[arg(long, value_name = "[DEVICE=]SIZE")]
    pub disk: Vec<DiskArg>,

    /// Add a scratch disk (instance store): blank at every start, kept on reboot; may be repeated
    #[arg(long, value_name = "SIZE")]
    pub scratch: Vec<Size>,

    /// Wait for the guest and open an ssh session; leaving it ends the instance unless --keep
    #[arg(long, conflicts_with = "console")]
    pub ssh: bool,

    /// Join the serial console; leaving it (Ctrl-]) ends the instance unless --keep
    #[arg(long)]
    pub console: bool,

    /// Let the instance live on when this command ends
    #[arg(long)]
    pub keep: bool,

    /// Offer a guest TCP port on this host; may be repeated
    #[arg(long, short = 'p', value_name = "[ADDRESS:]HOST:GUEST", value_parser = published)]
    pub publish: Vec<Published>,

    /// Tag the instance; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub tag: Vec<TagArg>,

    /// Name of the instance (its Name tag)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Metadata service: http-tokens=required|optional, hop-limit=1..64,
    /// http-endpoint=enabled|disabled, instance-tags=enabled|disabled
    #[arg(long, value_name = "KEY=VALUE,…", value_delimiter = ',')]
    pub metadata_options: Vec<MetadataArg>,

    /// How the guest reaches the outside
    #[arg(
        long,
        value_name = "auto|pasta|slirp4netns|veth|none",
        default_value = "auto"
    )]
    pub uplink: UplinkMode,

    /// Boot this kernel (bzImage, or ELF with a PVH note) instead of the one in the image
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Initial RAM disk for --kernel
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,

    /// Kernel command line: the whole one with --kernel, else appended to the image's own
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,

    /// Let the guest run virtual machines itself
    #[arg(long)]
    pub nested: bool,

    /// Count what the guest makes the VMM do and print it at the end
    #[arg(long)]
    pub trace: bool,

    /// Launch even if the test of this host's KVM fails
    #[arg(long)]
    pub skip_doctor: bool,
}

/// `cumulet images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ImagesCommand,
}

/// The commands under `cumulet images`.
#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// Make an AMI from a distribution's packages (debian-12)
    Build(ImageBuildArgs),
    /// Import a disk image (raw, qcow2, vmdk, vhd) as an AMI
    Import(ImageImportArgs),
    /// List AMIs
    #[command(visible_alias = "ls")]
    List,
    /// Remove AMIs that no instance uses
    Rm(ImageNames),
    /// Check AMIs against their digests
    Verify(ImageNames),
}

/// `cumulet images build`.
#[derive(Debug, Args)]
pub struct ImageBuildArgs {
    /// What to build
    #[arg(value_name = "RECIPE", add = ArgValueCandidates::new(complete::recipes))]
    pub recipe: String,
    /// Name of the AMI [default: the recipe's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Size of the root disk [default: 8 GiB; it is sparse]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Build anew, for newer packages, even if this recipe has been built before
    #[arg(long)]
    pub rebuild: bool,
}

/// `cumulet images import`.
#[derive(Debug, Args)]
pub struct ImageImportArgs {
    /// The image file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Name of the AMI [default: the file's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// One line about it
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Device name of the root disk, such as /dev/xvda [default: what the image suggests]
    #[arg(long, value_name = "DEVICE")]
    pub root_device: Option<String>,
    /// Take it although it cannot be booted here: a data disk, another architecture
    #[arg(long)]
    pub force: bool,
    /// Let the image name other files to be read (backing files, extents); only for your own
    #[arg(long)]
    pub allow_other_files: bool,
}

/// AMIs by id or name.
#[derive(Debug, Args)]
pub struct ImageNames {
    /// AMI ids or names
    #[arg(required = true, value_name = "AMI", add = ArgValueCandidates::new(complete::amis))]
    pub images: Vec<String>,
}

/// `cumulet ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Stopped ones, too
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Ids only, one a line
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

impl PsArgs {
    /// What `cumulet list` is.
    pub(super) const ALL: Self = Self {
        all: true,
        quiet: false,
    };
}

/// `cumulet describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// Instance ids or names [default: all]
    #[arg(value_name = "INSTANCE", add = ArgValueCandidates::new(complete::any))]
    pub instances: Vec<String>,
}

/// `cumulet ssh`.
#[derive(Debug, Args)]
pub struct SshArgs {
    /// Instance id or name
    #[arg(value_name = "INSTANCE", add = ArgValueCandidates::new(complete::running))]
    pub instance: String,
    /// User to log in as
    #[arg(long, short = 'l', default_value = super::ssh::DEFAULT_USER, value_name = "USER")]
    pub user: String,
    /// Private key, when it is not the one cumulet knows of
    #[arg(long, short = 'i', value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// How long to wait for the guest's ssh server, such as 90s or 10m
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub wait: Duration,
    /// Command to run in the guest [default: a shell]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `cumulet console`.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Instance id or name
    #[arg(value_name = "INSTANCE", add = ArgValueCandidates::new(complete::running))]
    pub instance: String,
    /// Only show what the guest says, until it ends or Ctrl-C
    #[arg(long, short = 'f', conflicts_with = "log")]
    pub follow: bool,
    /// Print what the guest has said so far (the last 64 KiB) and end; works when stopped, too
    #[arg(long)]
    pub log: bool,
}

/// `cumulet logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Instance id or name
    #[arg(value_name = "INSTANCE", add = ArgValueCandidates::new(complete::any))]
    pub instance: String,
    /// Go on with what comes, until the instance ends or Ctrl-C
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Only the last N lines of what is there
    #[arg(long, short = 'n', value_name = "N")]
    pub lines: Option<usize>,
    /// What our side did for the instance since its start, instead of the guest's console
    #[arg(long)]
    pub supervisor: bool,
}

/// `cumulet forward`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cumulet forward web 8080:80
  cumulet forward web 0:22 0.0.0.0:8443:443
Works with every running instance, those of the EC2 API among them. `cumulet run --publish` offers
ports for as long as the instance lives.")]
pub struct ForwardArgs {
    /// Instance id or name
    #[arg(value_name = "INSTANCE", add = ArgValueCandidates::new(complete::running))]
    pub instance: String,
    /// Host port (0: any free one) and guest port; without an address on 127.0.0.1 only
    #[arg(required = true, value_name = "[ADDRESS:]HOSTPORT:GUESTPORT")]
    pub forwards: Vec<Forward>,
}

/// `cumulet stop`.
#[derive(Debug, Args)]
#[command(after_help = "\
What the EC2 API launched is stopped through `cumulet serve` while that runs, so that the API says
why it is stopped.")]
pub struct StopArgs {
    /// Instance ids or names
    #[arg(required = true, value_name = "INSTANCE", add = ArgValueCandidates::new(complete::running))]
    pub instances: Vec<String>,
    /// Cut the power at once instead of pressing the power button
    #[arg(long)]
    pub force: bool,
    /// How long the guest may take before its power is cut
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub timeout: Duration,
}

/// `cumulet start`.
#[derive(Debug, Args)]
#[command(after_help = "\
What the EC2 API launched is started through `cumulet serve`, which has to run: its network and its
public address are the server's.")]
pub struct StartArgs {
    /// Instance ids or names
    #[arg(required = true, value_name = "INSTANCE", add = ArgValueCandidates::new(complete::stopped))]
    pub instances: Vec<String>,
    /// Start even if the test of this host's KVM fails
    #[arg(long)]
    pub skip_doctor: bool,
}

/// `cumulet reboot`.
#[derive(Debug, Args)]
#[command(after_help = "\
What the EC2 API launched is rebooted through `cumulet serve` while that runs, and is not waited for.
With --force or --timeout, which EC2's API does not know, it is asked directly.")]
pub struct RebootArgs {
    /// Instance ids or names
    #[arg(required = true, value_name = "INSTANCE", add = ArgValueCandidates::new(complete::running))]
    pub instances: Vec<String>,
    /// Press the reset button at once instead of asking the guest to shut down
    #[arg(long)]
    pub force: bool,
    /// How long the guest may take before it is reset [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// `cumulet terminate`.
#[derive(Debug, Args)]
#[command(after_help = "\
What the EC2 API launched is terminated through `cumulet serve` while that runs, which keeps volumes
that are to outlive it. Directly, everything is deleted.")]
pub struct TerminateArgs {
    /// Instance ids or names
    #[arg(required = true, value_name = "INSTANCE", add = ArgValueCandidates::new(complete::any))]
    pub instances: Vec<String>,
}

/// `cumulet completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
To have them in every new shell, add this line to its startup file:
  bash        source <(cumulet completions bash)             ~/.bashrc
  zsh         source <(cumulet completions zsh)              ~/.zshrc, after compinit
  fish        cumulet completions fish | source              ~/.config/fish/config.fish
  elvish      eval (cumulet completions elvish | slurp)      ~/.config/elvish/rc.elv
  powershell  cumulet completions powershell | Out-String | Invoke-Expression    $PROFILE")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `cumulet __dial`.
#[derive(Debug, Args)]
pub struct DialArgs {
    /// Instance id
    pub instance: String,
    /// Guest port
    pub port: u16,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ssh_takes_a_command_after_dashes() {
        let cli = Cli::try_parse_from(["cumulet", "ssh", "web", "--", "ls", "-l"]).unwrap();
        let Command::Ssh(args) = cli.command else {
            unreachable!("ssh parses as ssh");
        };
        assert_eq!(args.command, ["ls", "-l"]);
    }
}
