//! `cumulet ps`, `list`, `describe` and `types`.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::args::PsArgs;
use super::describe::Description;
use super::output::{Output, table};
use super::shape;
use crate::error::Result;
use crate::size::Size;
use crate::state::record::{Record, State};
use crate::state::{Home, Listed};
use crate::types;

/// `cumulet ps`, and `cumulet list`, which is `ps --all`.
pub(super) fn ps(home: &Home, output: Output, args: PsArgs) -> Result<u8> {
    let mut values = Vec::new();
    let mut rows = Vec::new();
    for listed in home.list()? {
        match listed {
            Listed::Good { record, .. } if args.all || record.state != State::Stopped => {
                let folder = home.instance(&record.instance_id)?;
                values.push(shape::instance(&record, folder.path()));
                rows.push(row(&record));
            }
            Listed::Good { .. } => {}
            Listed::Damaged { id, error } => {
                output.warn(&format!("{id}: {error}"));
                if args.all {
                    rows.push(vec![id, "-".into(), "damaged".into()]);
                }
            }
        }
    }
    output.result(&json!({ "Instances": values }), || {
        if args.quiet {
            rows.iter().map(|row| format!("{}\n", row[0])).collect()
        } else if !rows.is_empty() {
            table(
                &[
                    "INSTANCE", "NAME", "STATE", "TYPE", "IMAGE", "ADDRESS", "PUBLIC", "PORTS",
                    "AGE",
                ],
                &rows,
            )
        } else if args.all {
            "no instances; `cumulet run IMAGE` launches one".to_owned()
        } else {
            "nothing runs; `cumulet ps -a` shows what is stopped, `cumulet run IMAGE` launches one"
                .to_owned()
        }
    });
    Ok(0)
}

fn row(record: &Record) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let ports: Vec<String> = record
        .network
        .publish
        .iter()
        .map(|port| format!("{}:{}->{}", port.address, port.host, port.guest))
        .collect();
    vec![
        record.instance_id.clone(),
        or_none(record.name().map(str::to_owned)),
        record.state.to_string(),
        record.hardware.instance_type.clone(),
        or_none(record.image.as_ref().map(|image| image.name.clone())),
        record.network.private_ip.to_string(),
        or_none(shape::public_address(record).map(|address| address.to_string())),
        or_none((!ports.is_empty()).then(|| ports.join(","))),
        age(record.launch_time),
    ]
}

/// `cumulet describe`.
pub(super) fn describe(home: &Home, output: Output, wanted: &[String]) -> Result<u8> {
    let mut listed = Vec::new();
    if wanted.is_empty() {
        listed = home.list()?;
    } else {
        for name in wanted {
            listed.extend(home.find(name)?.look()?);
        }
    }
    let mut values: Vec<Value> = Vec::new();
    let mut texts = Vec::new();
    for listed in listed {
        match listed {
            Listed::Good { record, holder } => {
                let folder = home.instance(&record.instance_id)?;
                let description = Description::of(&record, &folder, holder.is_some());
                values.push(description.value());
                texts.push(description.text());
            }
            Listed::Damaged { error, .. } if !wanted.is_empty() => return Err(error),
            Listed::Damaged { id, error } => output.warn(&format!("{id}: {error}")),
        }
    }
    output.result(&json!({ "Instances": values }), || texts.join("\n"));
    Ok(0)
}

/// `cumulet types`.
pub(super) fn types(output: Output) -> Result<u8> {
    let values: Vec<Value> = types::all()
        .map(|known| shape::instance_type(&known))
        .collect();
    output.result(&json!({ "InstanceTypes": values }), || {
        let rows: Vec<Vec<String>> = types::all()
            .map(|known| {
                vec![
                    known.name,
                    known.vcpus.to_string(),
                    Size(known.memory_mib << 20).to_string(),
                    known.architecture.name().to_owned(),
                ]
            })
            .collect();
        table(&["TYPE", "VCPUS", "MEMORY", "ARCHITECTURE"], &rows)
    });
    Ok(0)
}

/// How long ago, in the largest unit that fits.
pub(super) fn age(since: OffsetDateTime) -> String {
    let seconds = (OffsetDateTime::now_utc() - since).whole_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
