//! Settings from environment variables.

use super::{Assignment, Place, SETTINGS, Setting, nearest};
use crate::contract::{RESERVED, SETTING_PREFIX};

/// The settings that `variables` hold, weakest first, and a warning for each name that looks like a slip.
///
/// A variable with a name of its own (`WEB_CONCURRENCY`, `PORT`, `DATABASE_URL`) is weaker than the `MONOCEROS_…` of the
/// same setting. An empty value counts as absent, as it does for most programs. A strange `MONOCEROS_…` is no error:
/// Kubernetes makes such names by itself (`MONOCEROS_SERVICE_HOST`); only one that is nearly a setting is warned about.
#[must_use]
pub fn assignments(variables: &[(String, String)]) -> (Vec<Assignment>, Vec<String>) {
    let value = |name: &str| {
        variables
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value)
    };
    let mut found = Vec::new();
    for setting in SETTINGS {
        let own = setting.variable();
        let named = setting.env.iter().map(|variable| (variable.name, variable.prefix));
        for (name, prefix) in named.chain([(own.as_str(), "")]) {
            if let Some(text) = value(name) {
                let place = Place::Variable(name.to_owned());
                found.push(Assignment { setting, text: format!("{prefix}{text}"), place });
            }
        }
    }
    let known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
    let warnings = variables
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| name.starts_with(SETTING_PREFIX) && !RESERVED.contains(name))
        .filter(|name| !known.iter().any(|known| known == name))
        .filter_map(|name| {
            let meant = nearest(
                &name[SETTING_PREFIX.len()..],
                SETTINGS.iter().map(|setting| setting.name),
            )?;
            let meant = Setting::find(meant)?.variable();
            Some(format!("environment {name}: unknown variable, ignored; did you mean {meant}?"))
        })
        .collect();
    (found, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn the_own_variable_beats_the_customary_one() {
        let (found, warnings) = assignments(&variables(&[
            ("MONOCEROS_WORKERS", "3"),
            ("WEB_CONCURRENCY", "2"),
            ("PORT", "8080"),
            ("DATABASE_URL", ""),
        ]));
        let resolved = resolve(&found).unwrap();
        assert_eq!(warnings, [""; 0]);
        assert_eq!(resolved.settings.workers, 3);
        assert_eq!(resolved.settings.bind, ["0.0.0.0:8080"]);
        assert_eq!(resolved.settings.database, None);
        assert_eq!(
            resolved.value("workers").unwrap().place,
            Place::Variable("MONOCEROS_WORKERS".into())
        );
    }

    #[test]
    fn only_a_near_miss_is_warned_about() {
        let (found, warnings) = assignments(&variables(&[
            ("MONOCEROS_TIMOUT", "3"),
            ("MONOCEROS_SERVICE_HOST", "10.0.0.1"),
            ("MONOCEROS_SLOT", "1"),
        ]));
        assert!(found.is_empty());
        assert_eq!(
            warnings,
            [
                "environment MONOCEROS_TIMOUT: unknown variable, ignored; did you mean MONOCEROS_TIMEOUT?"
            ]
        );
    }
}
