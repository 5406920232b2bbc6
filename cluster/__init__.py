"""What the whole cluster decides and shows: controller, placement, start-up, command line, web.

May import every floor below, and ``ray``; nothing below ever imports this floor.
"""
