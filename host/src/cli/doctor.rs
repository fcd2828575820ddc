//! `porthole doctor`.

use std::process::ExitCode;

use porthole::kernel::KernelFacts;
use porthole::kernel::features::{Answer, checks};

pub fn doctor() -> anyhow::Result<ExitCode> {
    let checks = checks(&KernelFacts::running());
    let width = checks.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
    for check in &checks {
        let name = check.name;
        match &check.answer {
            Answer::Yes => println!("{name:<width$}  yes"),
            Answer::No(why) => println!("{name:<width$}  no: {why}"),
            Answer::Unknown(why) => println!("{name:<width$}  could not tell: {why}"),
        }
        if let Some(advice) = &check.advice {
            println!("{:<width$}  -> {advice}", "");
        }
    }
    Ok(ExitCode::SUCCESS)
}
