//! Rows as text and as JSON.

use std::fs::File;

use serde_json::{Value, json};

use crate::e2e::host::Run;
use crate::e2e::load::{as_thread, getppid};
use crate::e2e::{Directory, is_root, plugin, unique};
use crate::text;

#[test]
fn root_text_rows_stand_in_columns() {
    if !is_root() {
        return;
    }
    let (files, comm) = (Directory::new("text"), unique());
    let file = files.file("file", "");
    let host = Run::new(&plugin("opens")).text().arg("--comm").arg(&comm).attach();
    let missing = files.path().join("none");
    let opened = file.clone();
    as_thread(&comm, move || (0..3).for_each(|_| drop((File::open(&opened), File::open(&missing)))));
    let ended = host.interrupt().successful();
    let lines: Vec<Vec<&str>> = text(&ended.stdout).lines().map(|line| line.split_whitespace().collect()).collect();
    let Some((heading, rows)) = lines.split_first() else { panic!("nothing was printed") };
    assert_eq!(heading[..], ["TIME", "EVENT", "PID", "COMM", "PATH", "RESULT", "ERROR"], "once, for rows all alike");
    assert_eq!(rows.len(), 6);
    let (pid, file) = (std::process::id().to_string(), file.to_str().expect("a path that we have made"));
    for row in rows.iter().step_by(2) {
        let seconds: f64 = row[0].parse().expect("a time");
        assert!(seconds > 0.0, "since the start of the run: {row:?}");
        assert_eq!((&row[1..5], &row[6..]), (&["open", &pid, &comm, file][..], &["-"][..]));
    }
    assert!(rows[1].ends_with(&["-2", "ENOENT"]), "{:?}", rows[1]);
}

#[test]
fn root_text_rows_of_several_plugins_name_them() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let host = Run::new(&plugin("calls")).plugin(&plugin("hostile")).text().arg("--comm").arg(&comm).attach();
    getppid(&comm, 2);
    let ended = host.interrupt().successful();
    let rows: Vec<&str> = text(&ended.stdout).lines().collect();
    assert_eq!(rows.iter().filter(|row| row.contains(&format!(" hostile call pid={}", std::process::id()))).count(), 2);
    assert_eq!(rows.iter().filter(|row| row.contains(" calls total events=2 lost=0 sum=")).count(), 1);
    assert_eq!(rows.len(), 3, "{rows:?}");
}

/// The field `value` of an event, in JSON, for the expression.
fn value(expression: &str) -> Value {
    let comm = unique();
    let host = Run::new(&plugin("hostile")).arg("--value").arg(expression).arg("--comm").arg(&comm).attach();
    getppid(&comm, 1);
    let ended = host.interrupt().successful();
    let rows = ended.rows();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((&row["plugin"], &row["event"]), (&"hostile".into(), &"call".into()));
    assert_eq!(row["fields"]["pid"], std::process::id());
    assert!(row["time_ns"].as_u64().is_some_and(|time| time > 0));
    assert_eq!(row.as_object().map(serde_json::Map::len), Some(4), "{row}");
    row["fields"]["value"].clone()
}

#[test]
fn root_values_in_json_are_exact() {
    if !is_root() {
        return;
    }
    // No float holds these.
    assert_eq!(value("pid - pid + 0xffffffffffffffff").to_string(), "18446744073709551615");
    assert_eq!(value("-9223372036854775807 - 1").to_string(), "-9223372036854775808");
    assert_eq!(value("9007199254740993").to_string(), "9007199254740993");
    assert_eq!(value("pid == pid"), json!(true));
    assert_eq!(value("1 / (pid - pid)"), Value::Null);
}
