//! `cumulet images`: the AMI store on the command line.

use cumulet_images::store::{Ami, AmiStore, ImportOptions, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args::{ImageBuildArgs, ImageImportArgs, ImageNames, ImagesCommand};
use super::output::{Output, table};
use crate::amis::{find, open, translate};
use crate::error::{Error, Result};
use crate::size::Size;
use crate::state::Home;
use crate::types::{InstanceType, architecture_of};

/// `cumulet images …`.
pub(super) fn images(home: &Home, output: Output, command: ImagesCommand) -> Result<u8> {
    let store = open(home)?;
    match command {
        ImagesCommand::Build(args) => build(&store, output, args),
        ImagesCommand::Import(args) => import(&store, output, args),
        ImagesCommand::List => list(&store, output),
        ImagesCommand::Rm(args) => remove(home, &store, output, &args),
        ImagesCommand::Verify(args) => verify(&store, output, &args),
    }
}

/// Whether this type can run this AMI.
pub(super) fn check_architecture(ami: &Ami, kind: &InstanceType) -> Result<()> {
    let needs = architecture_of(ami);
    if needs == kind.architecture.name() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "The architecture '{}' of the instance type {} does not match the architecture '{needs}' \
         of the image {}",
        kind.architecture.name(),
        kind.name,
        ami.id
    ))
    .mend("choose another type (`cumulet types`) or another image"))
}

/// `Image` of EC2's DescribeImages.
fn shape(store: &AmiStore, ami: &Ami) -> Value {
    json!({
        "ImageId": ami.id,
        "Name": ami.name,
        "Description": ami.description,
        "Architecture": architecture_of(ami),
        "CreationDate": ami.creation_date,
        "State": "available",
        "RootDeviceName": ami.root_device_name,
        "RootDeviceType": "ebs",
        "VirtualizationType": "hvm",
        "PlatformDetails": "Linux/UNIX",
        "BlockDeviceMappings": [{
            "DeviceName": ami.root_device_name,
            "Ebs": { "VolumeSize": Size(ami.size).gib_rounded_up() },
        }],
        "Cumulet": {
            "SizeBytes": ami.size,
            "UsedBytes": ami.used_bytes,
            "Digest": ami.digest,
            "Os": ami.os,
            "Boot": ami.boot,
            "Disk": store.disk_path(ami),
        },
    })
}

fn list(store: &AmiStore, output: Output) -> Result<u8> {
    let amis = store.list().map_err(|error| translate(&error))?;
    let values: Vec<Value> = amis.iter().map(|ami| shape(store, ami)).collect();
    output.result(&json!({ "Images": values }), || {
        if amis.is_empty() {
            return "no images; `cumulet images build debian-12` makes one".to_owned();
        }
        let rows: Vec<Vec<String>> = amis
            .iter()
            .map(|ami| {
                vec![
                    ami.id.clone(),
                    ami.name.clone(),
                    architecture_of(ami),
                    Size(ami.size).to_string(),
                    Size(ami.used_bytes).to_string(),
                    ami.os.clone().unwrap_or_else(|| "-".to_owned()),
                    ami.creation_date.get(..10).unwrap_or_default().to_owned(),
                ]
            })
            .collect();
        table(
            &["IMAGE", "NAME", "ARCH", "SIZE", "USED", "SYSTEM", "MADE"],
            &rows,
        )
    });
    Ok(0)
}

fn told(store: &AmiStore, output: Output, ami: &Ami, what: &str) {
    output.result(&shape(store, ami), || {
        format!("{} {} ({what})", ami.id, ami.name)
    });
}

fn import(store: &AmiStore, output: Output, args: ImageImportArgs) -> Result<u8> {
    let bar = Bar::new(output, &format!("importing {}", args.file.display()));
    let options = ImportOptions {
        name: args.name,
        description: args.description.unwrap_or_default(),
        root_device_name: args.root_device,
        force: args.force,
        allow_other_files: args.allow_other_files,
        recipe: None,
    };
    let imported = store.import(&args.file, &options, &mut |progress| bar.show(progress));
    bar.done();
    let ami = imported.map_err(|error| translate(&error))?;
    told(store, output, &ami, "imported");
    Ok(0)
}

fn build(store: &AmiStore, output: Output, args: ImageBuildArgs) -> Result<u8> {
    use cumulet_images::build::{BuildError, BuildEvent, BuildOptions, build};
    let bar = Bar::new(output, &format!("building {}", args.recipe));
    let defaults = BuildOptions::default();
    let options = BuildOptions {
        name: args.name,
        rebuild: args.rebuild,
        size: args.size.map_or(defaults.size, |size| size.0),
    };
    let mut step = String::new();
    let built = build(store, &args.recipe, &options, &mut |event| match event {
        BuildEvent::Step { number, of, text } => {
            step = format!("{number}/{of} {text}");
            bar.step(&step);
        }
        BuildEvent::Line(line) => bar.line(&step, line),
        BuildEvent::Progress(progress) => bar.show(progress),
    });
    bar.done();
    let built = built.map_err(|error| match &error {
        BuildError::Store(inner) => translate(inner),
        BuildError::Recipe { .. } | BuildError::Size(_) => Error::invalid(error.to_string()),
        BuildError::Machine(_) | BuildError::Tools { .. } | BuildError::SubIds(_) => {
            Error::host("CannotBuild", error.to_string())
        }
        BuildError::Program { .. } | BuildError::Io { .. } => {
            let outer = Error::internal(error.to_string());
            match std::error::Error::source(&error) {
                Some(cause) => outer.because(cause),
                None => outer,
            }
        }
    })?;
    let what = if built.reused {
        "built before; --rebuild makes it anew"
    } else {
        "built"
    };
    told(store, output, &built.ami, what);
    Ok(0)
}

fn remove(home: &Home, store: &AmiStore, output: Output, args: &ImageNames) -> Result<u8> {
    // No launch may choose the image while we look who uses it.
    let guard = home.guard()?;
    let mut removed = Vec::new();
    for wanted in &args.images {
        let ami = find(store, wanted)?;
        store.delete(&ami.id).map_err(|error| translate(&error))?;
        removed.push(ami.id);
    }
    drop(guard);
    output.result(&json!({ "Return": true, "ImageIds": removed }), || {
        removed
            .iter()
            .map(|id| format!("{id}: removed\n"))
            .collect()
    });
    Ok(0)
}

fn verify(store: &AmiStore, output: Output, args: &ImageNames) -> Result<u8> {
    let mut good = Vec::new();
    for wanted in &args.images {
        let ami = find(store, wanted)?;
        let bar = Bar::new(output, &format!("verifying {}", ami.id));
        let verified = store.verify(&ami.id, &mut |progress| bar.show(progress));
        bar.done();
        verified.map_err(|error| translate(&error))?;
        good.push(ami);
    }
    let values: Vec<Value> = good
        .iter()
        .map(|ami| json!({ "ImageId": ami.id, "Digest": ami.digest, "Verified": true }))
        .collect();
    output.result(&json!({ "Images": values }), || {
        good.iter()
            .map(|ami| format!("{} {}: good ({})\n", ami.id, ami.name, ami.digest))
            .collect()
    });
    Ok(0)
}

/// A progress bar in bytes, a spinner while there are none to count. Where no person watches a
/// terminal, only steps are told, a line each.
struct Bar(ProgressBar, Output);

impl Bar {
    fn new(output: Output, what: &str) -> Self {
        Self(output.spinner(what), output)
    }

    fn show(&self, progress: Progress) {
        if self.0.length() != Some(progress.total) {
            let template = "{spinner} {msg} [{wide_bar}] {bytes}/{total_bytes} ({eta})";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.0.set_style(style.progress_chars("=> "));
            }
            self.0.set_length(progress.total);
        }
        self.0.set_position(progress.done);
    }

    fn step(&self, step: &str) {
        if self.0.is_hidden() {
            self.1.note(step);
        }
        self.0.set_message(step.to_owned());
    }

    fn line(&self, step: &str, line: &str) {
        let short: String = line.chars().filter(|c| !c.is_control()).take(60).collect();
        self.0.set_message(format!("{step}: {short}"));
    }

    fn done(&self) {
        self.0.finish_and_clear();
    }
}
