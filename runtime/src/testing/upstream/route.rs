//! Which requests an answer is for.

use http::Method;

use super::request::decoded;

/// A method and the template of a path, each of which may be left open.
#[derive(Clone, Debug)]
pub(super) struct Route {
    method: Option<Method>,
    /// `None` for every path.
    segments: Option<Vec<Segment>>,
}

#[derive(Clone, Debug)]
enum Segment {
    Is(String),
    Named(String),
}

/// The segments that a template names, with what stands in their places.
pub(super) type Named = Vec<(String, String)>;

impl Route {
    /// Reads `GET /items/{id}`, `/items/{id}` for every method, `*` for everything, or `GET *`.
    #[track_caller]
    pub(super) fn parse(text: &str) -> Self {
        match Self::read(text) {
            Ok(route) => route,
            Err(why) => panic!("the route `{text}` {why}; write for example `GET /items/{{id}}`"),
        }
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => (Some(method), path.trim()),
            None => (None, text),
        };
        let method = method.map(|name| match name {
            "DELETE" => Ok(Method::DELETE),
            "GET" => Ok(Method::GET),
            "HEAD" => Ok(Method::HEAD),
            "OPTIONS" => Ok(Method::OPTIONS),
            "PATCH" => Ok(Method::PATCH),
            "POST" => Ok(Method::POST),
            "PUT" => Ok(Method::PUT),
            _ => Err("begins with no method of HTTP"),
        });
        let method = method.transpose()?;
        if path == "*" {
            return Ok(Self {
                method,
                segments: None,
            });
        }
        if !path.starts_with('/') {
            return Err("has no path that begins with a slash");
        }
        if path.contains(['?', '#']) {
            return Err("has a query, which is not a part of it");
        }
        let segment = |text: &str| match text.strip_prefix('{') {
            Some(rest) => match rest.strip_suffix('}') {
                Some(name) if !name.is_empty() && !name.contains(['{', '}']) => {
                    Ok(Segment::Named(name.to_owned()))
                }
                _ => Err("has a brace that is not closed"),
            },
            None if text.contains(['{', '}']) => Err("has a brace within a segment"),
            None => Ok(Segment::Is(decoded(text, false))),
        };
        let segments: Result<_, _> = path[1..].split('/').map(segment).collect();
        Ok(Self {
            method,
            segments: Some(segments?),
        })
    }

    /// Whether it is not for every path.
    pub(super) fn names_a_path(&self) -> bool {
        self.segments.is_some()
    }

    /// The named segments of a request that it is for; `None` of any other.
    pub(super) fn matches(&self, method: &Method, path: &str) -> Option<Named> {
        if self.method.as_ref().is_some_and(|own| own != method) {
            return None;
        }
        let Some(segments) = &self.segments else {
            return Some(Named::new());
        };
        let mut named = Named::new();
        let mut given = path.strip_prefix('/')?.split('/');
        for segment in segments {
            let text = decoded(given.next()?, false);
            match segment {
                Segment::Is(own) if *own == text => {}
                Segment::Named(name) if !text.is_empty() => named.push((name.clone(), text)),
                _ => return None,
            }
        }
        given.next().is_none().then_some(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(route: &str, method: &Method, path: &str) -> Option<Vec<String>> {
        let named = Route::parse(route).matches(method, path)?;
        Some(named.into_iter().map(|(_, text)| text).collect())
    }

    #[test]
    fn a_route_is_for_its_method_and_its_path() {
        let get = &Method::GET;
        let items = "GET /items/{id}";
        assert_eq!(named(items, get, "/items/7"), Some(vec!["7".into()]));
        assert_eq!(
            named(items, get, "/items/a%2Fb%20c"),
            Some(vec!["a/b c".into()])
        );
        for path in ["/items", "/items/", "/items/7/", "/items/7/8", "/other/7"] {
            assert_eq!(named(items, get, path), None, "{path}");
        }
        assert_eq!(named(items, &Method::PUT, "/items/7"), None);
        assert_eq!(named("/items", &Method::PUT, "/items"), Some(vec![]));
        assert_eq!(named("*", &Method::PUT, "/any/thing"), Some(vec![]));
        assert_eq!(named("PUT *", get, "/any/thing"), None);
    }

    #[test]
    fn what_is_wrong_with_a_route_is_said() {
        for (route, why) in [
            ("items", "no path"),
            ("get /items", "no method"),
            ("GET /items?x=1", "a query"),
            ("GET /items/{id", "not closed"),
            ("GET /items/x{id}", "within a segment"),
        ] {
            let told = Route::read(route).unwrap_err();
            assert!(told.contains(why), "{route}: {told}");
        }
    }
}
