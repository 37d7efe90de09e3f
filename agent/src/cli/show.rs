//! `cumulet list`, `describe` and `types`.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::output::{Output, table};
use super::shape;
use crate::error::Result;
use crate::size::Size;
use crate::state::{Home, Listed};
use crate::types;

/// `cumulet list`.
pub(super) fn list(home: &Home, output: Output) -> Result<u8> {
    let mut values = Vec::new();
    let mut rows = Vec::new();
    for listed in home.list()? {
        match listed {
            Listed::Good { record, .. } => {
                let folder = home.instance(&record.instance_id)?;
                values.push(shape::instance(&record, folder.path()));
                let image = record
                    .image
                    .as_ref()
                    .map_or("-", |image| image.name.as_str());
                rows.push(vec![
                    record.instance_id.clone(),
                    record.name().unwrap_or("-").to_owned(),
                    record.state.to_string(),
                    record.hardware.instance_type.clone(),
                    record.network.private_ip.to_string(),
                    image.to_owned(),
                    age(record.launch_time),
                ]);
            }
            Listed::Damaged { id, error } => {
                output.warn(&format!("{id}: {error}"));
                rows.push(vec![id, "-".into(), "damaged".into()]);
            }
        }
    }
    output.result(&json!({ "Instances": values }), || {
        if rows.is_empty() {
            "no instances; `cumulet run IMAGE` launches one".to_owned()
        } else {
            table(
                &[
                    "INSTANCE", "NAME", "STATE", "TYPE", "ADDRESS", "IMAGE", "AGE",
                ],
                &rows,
            )
        }
    });
    Ok(0)
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
            Listed::Good { record, .. } => {
                let folder = home.instance(&record.instance_id)?;
                values.push(shape::instance(&record, folder.path()));
                texts.push(shape::text(&record, folder.path()));
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
