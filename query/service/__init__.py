"""`clipsieve serve`: search over HTTP, and a page for people.

Start reading at `app.create_app`. A request passes the guards, a route turns it into a `Question`, `Service.ask` asks
a store, and the hits become JSON or the page.
"""
