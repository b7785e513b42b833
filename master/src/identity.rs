//! Who the workers are: user, group and supplementary groups, resolved from the settings.

use std::cell::RefCell;
use std::ffi::CString;
use std::rc::Rc;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};
use shared::settings::Settings;
use sys::spawn::Credentials;

/// Who the workers are by the settings that were looked up last: a reload that changes none of these asks nobody, for the
/// user database may be far away and slow. Copies remember the same.
#[derive(Debug, Clone, Default)]
pub struct Remembered(Rc<RefCell<Option<Answer>>>);

/// The settings that say who the workers are.
type Asked = (Option<String>, Option<String>, bool);

/// What was asked, and the answer.
type Answer = (Asked, Option<Credentials>);

impl Remembered {
    /// As [`resolve`], for settings that have not changed from memory.
    ///
    /// # Errors
    ///
    /// As [`resolve`].
    pub fn resolve(
        &self,
        settings: &Settings,
    ) -> Result<Option<Credentials>, (&'static str, String)> {
        let asked = (settings.user.clone(), settings.group.clone(), settings.initgroups);
        if let Some((known, credentials)) = &*self.0.borrow()
            && *known == asked
        {
            return Ok(credentials.clone());
        }
        let credentials = resolve(settings)?;
        *self.0.borrow_mut() = Some((asked, credentials.clone()));
        Ok(credentials)
    }
}

/// Finds who the workers shall be. `Ok(None)`: whoever the master is.
///
/// # Errors
///
/// The setting at fault, and what is wrong with it.
pub fn resolve(settings: &Settings) -> Result<Option<Credentials>, (&'static str, String)> {
    if settings.user.is_none() && settings.group.is_none() {
        return Ok(None);
    }
    let user = settings.user.as_deref().map(find_user).transpose()?;
    let group = settings.group.as_deref().map(find_group).transpose()?;
    let uid = user.as_ref().map_or_else(geteuid, |user| user.uid);
    let gid = group.or(user.as_ref().and_then(|user| user.gid)).unwrap_or_else(getegid);
    let blamed = if settings.user.is_some() { "user" } else { "group" };
    if !geteuid().is_root() {
        if (uid, gid) == (geteuid(), getegid()) {
            return Ok(None);
        }
        return Err((blamed, format!("{blamed}: only root can run workers as somebody else")));
    }
    let mut groups = Vec::new();
    if settings.initgroups {
        let name = user.as_ref().and_then(|user| user.name.clone());
        let name = name.ok_or(("initgroups", "initgroups needs a user with a name".to_owned()))?;
        groups = getgrouplist(&name, gid).map_err(|errno| {
            ("initgroups", format!("initgroups: cannot look up the user's groups: {errno}"))
        })?;
    }
    let groups = groups.into_iter().map(Gid::as_raw).collect();
    Ok(Some(Credentials { uid: uid.as_raw(), gid: gid.as_raw(), groups }))
}

struct Found {
    uid: Uid,
    gid: Option<Gid>,
    name: Option<CString>,
}

fn find_user(text: &str) -> Result<Found, (&'static str, String)> {
    let number = text.parse::<u32>().ok().map(Uid::from_raw);
    let known = match number {
        Some(uid) => User::from_uid(uid),
        None => User::from_name(text),
    };
    match (known.ok().flatten(), number) {
        (Some(user), _) => {
            Ok(Found { uid: user.uid, gid: Some(user.gid), name: CString::new(user.name).ok() })
        }
        // A number needs no entry in the user database.
        (None, Some(uid)) => Ok(Found { uid, gid: None, name: None }),
        (None, None) => {
            Err(("user", format!("user is {text:?}, and there is no user of that name")))
        }
    }
}

fn find_group(text: &str) -> Result<Gid, (&'static str, String)> {
    if let Ok(number) = text.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        _ => Err(("group", format!("group is {text:?}, and there is no group of that name"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(user: Option<&str>, group: Option<&str>) -> Settings {
        Settings {
            user: user.map(str::to_owned),
            group: group.map(str::to_owned),
            ..Settings::default()
        }
    }

    #[test]
    fn nobody_named_means_nobody_changed() {
        assert_eq!(resolve(&Settings::default()), Ok(None));
    }

    #[test]
    fn strangers_are_named_with_their_setting() {
        assert_eq!(resolve(&settings(Some("no-such-user"), None)).unwrap_err().0, "user");
        assert_eq!(resolve(&settings(Some("root"), Some("no-such-group"))).unwrap_err().0, "group");
    }

    #[test]
    fn supplementary_groups_are_dropped() {
        let found = resolve(&settings(Some("65534"), Some("65533")));
        if geteuid().is_root() {
            assert_eq!(found, Ok(Some(Credentials { uid: 65_534, gid: 65_533, groups: vec![] })));
        } else {
            assert_eq!(found.unwrap_err().0, "user");
        }
    }
}
