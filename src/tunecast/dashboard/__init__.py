"""The web application that shows sessions while they run, and steers them if it may.

It reads what sessions and stores keep, and writes nothing but instructions
(:mod:`tunecast.session.instructions`). Sessions know nothing of it.
"""
