//! Answers for people: names and values in two columns, lists as tables.

use serde_json::{Map, Value};

/// Between columns.
const GAP: &str = "  ";

/// The answer as lines of text.
#[must_use]
pub(super) fn of(data: &Value) -> String {
    match data {
        Value::Object(fields) => match fields.get("message").and_then(Value::as_str) {
            Some(message) => format!("{message}\n"),
            None => of_fields(fields),
        },
        Value::Null => String::new(),
        other => format!("{}\n", cell(other)),
    }
}

fn of_fields(fields: &Map<String, Value>) -> String {
    let (nested, fields): (Vec<_>, Vec<_>) =
        fields.iter().partition(|(_, value)| value.is_object());
    let (lists, plain): (Vec<_>, Vec<_>) =
        fields.into_iter().partition(|(_, value)| value.is_array());
    let rows: Vec<Vec<String>> = plain
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| vec![(*name).clone(), cell(value)])
        .collect();
    let mut tables: Vec<String> =
        nested.into_iter().filter_map(|(_, value)| value.as_object().map(of_fields)).collect();
    tables.push(table(&rows));
    tables.extend(
        lists.into_iter().map(|(_, list)| of_list(list.as_array().map_or(&[], Vec::as_slice))),
    );
    tables.retain(|table| !table.is_empty());
    tables.join("\n")
}

fn of_list(list: &[Value]) -> String {
    let Some(Value::Object(first)) = list.first() else {
        return list.iter().map(|value| format!("{}\n", cell(value))).collect();
    };
    // A column that is empty everywhere tells nothing.
    let names: Vec<&String> = first
        .keys()
        .filter(|name| list.iter().any(|row| row.get(*name).is_some_and(|cell| !cell.is_null())))
        .collect();
    let mut rows = vec![names.iter().map(|name| name.to_uppercase()).collect()];
    rows.extend(
        list.iter().map(|row| names.iter().map(|name| cell(&row[name.as_str()])).collect()),
    );
    table(&rows)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join(GAP).trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_readable() {
        assert_eq!(of(&json!({ "message": "done", "took_ms": 3 })), "done\n");
        let all = json!({ "pid": 7, "last_reload": "none", "gone": null, "workers": [
            { "slot": 0, "pid": 10, "request": null },
            { "slot": 11, "pid": 9, "request": null },
        ] });
        let want = "last_reload  none\npid          7\n\nPID  SLOT\n10   0\n9    11\n";
        assert_eq!(of(&all), want);
    }
}
