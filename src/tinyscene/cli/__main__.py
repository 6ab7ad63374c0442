from tinyscene.cli.main import main

main()
