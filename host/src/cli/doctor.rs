//! `porthole doctor`.

use std::fmt::Write;
use std::process::ExitCode;

use porthole::kernel::KernelFacts;
use porthole::kernel::features::checks;

pub fn doctor() -> anyhow::Result<ExitCode> {
    let checks = checks(&KernelFacts::running());
    let width = checks.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &checks {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<width$}  {}", check.name, check.answer);
        if let Some(advice) = &check.advice {
            let _ = writeln!(text, "{:<width$}  -> {advice}", "");
        }
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
