"""The leaderboard's pages, one file each: `page()` says where it lives, `show()` draws it, `POSITION` is its place.

The folder is not called `pages`: Streamlit would then take its files for scripts, and a link straight to
one of them would run it without `main.py` around it.
"""
