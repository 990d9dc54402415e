"""The journal: what a server has acknowledged, in one SQLite file that it alone writes.

* :mod:`.files` finds, checks and locks the file of a server process;
* :mod:`.schema` is what is in it;
* :mod:`.writer` is the one thread that writes, many entries in one commit;
* :mod:`.reader` reads sessions back;
* :mod:`.retention` forgets what nobody can ask for any more;
* :mod:`.journal` is the whole as the session store sees it.
"""
