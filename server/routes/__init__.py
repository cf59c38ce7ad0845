"""One module a group of routes; each offers an `APIRouter`."""
